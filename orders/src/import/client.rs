//! The services as the import sees them: HTTP with patience.
//!
//! A service may be restarted while an import runs, or not have started yet. What
//! fails because nobody answers is tried again, with growing pauses, until the
//! service has been away for too long. Every request here may safely be repeated.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::progress::Progress;
use crate::order::Status;

/// The first pause before trying again.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// The longest pause: what an import loses at most after a service is back.
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// How long one answer may take; a service that is alive is far below.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Orders a page of the list.
const PAGE: usize = 500;

/// One service.
pub(crate) struct Service {
    name: &'static str,
    url: String,
    http: reqwest::Client,
    patience: Duration,
    outage: Mutex<Option<Outage>>,
    progress: Progress,
}

/// What a service answered.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

/// Since when nobody answers.
struct Outage {
    began: Instant,
}

/// Why a request did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Nobody answered for too long.
    #[error("the {service} service at {url} has not answered for {} s: {cause}; is it running?", patience.as_secs())]
    Away {
        /// Which service.
        service: &'static str,
        /// Where.
        url: String,
        /// For how long it was tried.
        patience: Duration,
        /// The last failure.
        cause: String,
    },
    /// It answered, and said no.
    #[error("{status}: {detail}")]
    Refused {
        /// HTTP's status.
        status: u16,
        /// The problem's detail.
        detail: String,
    },
    /// It answered something that is not understood.
    #[error(
        "the {service} service at {url} answered what was not expected ({what}); is it the {service} service?"
    )]
    Strange {
        /// Which service.
        service: &'static str,
        /// Where.
        url: String,
        /// What was wrong.
        what: String,
    },
}

/// What posting an order did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Posted {
    /// It is new.
    Accepted(Uuid),
    /// It had been posted before.
    Repeated(Uuid),
}

/// An order, as much as the import needs.
#[derive(Debug, Deserialize)]
pub(crate) struct Seen {
    /// Its id.
    pub(crate) order_id: Uuid,
    /// Where it stands.
    pub(crate) status: Status,
    history: Vec<Moment>,
}

#[derive(Debug, Deserialize)]
struct Moment {
    at: Timestamp,
}

#[derive(Deserialize)]
struct Page {
    orders: Vec<Seen>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Products {
    products: Vec<Product>,
}

#[derive(Deserialize)]
struct Product {
    product_id: String,
}

#[derive(Deserialize)]
struct Placed {
    order_id: Uuid,
}

#[derive(Deserialize)]
struct Problem {
    title: Option<String>,
    detail: Option<String>,
}

impl Seen {
    /// Microseconds from acceptance to the last change.
    pub(crate) fn micros(&self) -> u64 {
        let at = |moment: Option<&Moment>| moment.map_or(0, |moment| moment.at.as_microsecond());
        u64::try_from(at(self.history.last()) - at(self.history.first())).unwrap_or(0)
    }
}

impl Service {
    /// The service called `name` at `url`.
    pub(crate) fn new(
        name: &'static str,
        url: &str,
        http: reqwest::Client,
        patience: Duration,
        progress: Progress,
    ) -> Self {
        let url = url.trim_end_matches('/').to_owned();
        Self {
            name,
            url,
            http,
            patience,
            outage: Mutex::new(None),
            progress,
        }
    }

    /// Posts an order.
    pub(crate) async fn post_order(
        &self,
        key: &str,
        order: &impl Serialize,
    ) -> Result<Posted, ClientError> {
        let request = self
            .request(Method::POST, "/orders")
            .header("Idempotency-Key", key)
            .json(order);
        let answer = self.send(request).await?;
        let Placed { order_id } = self.json(&answer)?;
        let repeated = answer.headers.contains_key("idempotency-replayed");
        Ok(if repeated {
            Posted::Repeated(order_id)
        } else {
            Posted::Accepted(order_id)
        })
    }

    /// One order; `None` if there is none.
    pub(crate) async fn order(&self, id: Uuid) -> Result<Option<Seen>, ClientError> {
        match self
            .send(self.request(Method::GET, &format!("/orders/{id}")))
            .await
        {
            Ok(answer) => self.json(&answer).map(Some),
            Err(ClientError::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The orders accepted after the one with the id `after`, and where to go on.
    pub(crate) async fn orders(
        &self,
        after: &str,
    ) -> Result<(Vec<Seen>, Option<String>), ClientError> {
        let request = self.request(Method::GET, &format!("/orders?limit={PAGE}&after={after}"));
        let page: Page = self.json(&self.send(request).await?)?;
        Ok((page.orders, page.next))
    }

    /// The ids of all products.
    pub(crate) async fn products(&self) -> Result<Vec<String>, ClientError> {
        let page: Products =
            self.json(&self.send(self.request(Method::GET, "/products")).await?)?;
        Ok(page
            .products
            .into_iter()
            .map(|product| product.product_id)
            .collect())
    }

    /// Creates a product; one that exists stays as it is.
    pub(crate) async fn create_product(&self, id: &str, stock: i64) -> Result<(), ClientError> {
        let body = serde_json::json!({ "name": format!("CD {}", id.trim_start_matches("cd-")), "stock": stock });
        let request = self.request(Method::PUT, &format!("/products/{id}"));
        match self
            .send(request.header("If-None-Match", "*").json(&body))
            .await
        {
            Ok(_) | Err(ClientError::Refused { status: 412, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.url))
            .timeout(ANSWER_MAX)
    }

    /// Sends until somebody answers in full, and makes an answer other than success an error.
    async fn send(&self, request: RequestBuilder) -> Result<Answer, ClientError> {
        let mut pause = BACKOFF_MIN;
        loop {
            let attempt = request
                .try_clone()
                .ok_or_else(|| self.strange("the request can't be repeated"))?;
            let cause = match answer(attempt).await {
                Ok(answer) if !means_away(answer.status) => {
                    self.back();
                    return accept(answer);
                }
                Ok(answer) => answer.status.to_string(),
                Err(error) => innermost(&error),
            };
            self.away(&cause)?;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BACKOFF_MAX);
        }
    }

    fn json<T: serde::de::DeserializeOwned>(&self, answer: &Answer) -> Result<T, ClientError> {
        serde_json::from_slice(&answer.body).map_err(|error| self.strange(&error.to_string()))
    }

    fn strange(&self, what: &str) -> ClientError {
        ClientError::Strange {
            service: self.name,
            url: self.url.clone(),
            what: what.to_owned(),
        }
    }

    /// Notes that nobody answered, and says so at the first time.
    fn away(&self, cause: &str) -> Result<(), ClientError> {
        let mut outage = self.outage();
        let Some(Outage { began }) = &*outage else {
            *outage = Some(Outage {
                began: Instant::now(),
            });
            let limit = self.patience.as_secs();
            self.progress.say(&format!(
                "the {} service at {} does not answer ({cause}); trying again for up to {limit} s",
                self.name, self.url
            ));
            return Ok(());
        };
        if began.elapsed() < self.patience {
            return Ok(());
        }
        Err(ClientError::Away {
            service: self.name,
            url: self.url.clone(),
            patience: self.patience,
            cause: cause.to_owned(),
        })
    }

    fn back(&self) {
        if let Some(Outage { began }) = self.outage().take() {
            let seconds = began.elapsed().as_secs_f64();
            self.progress.say(&format!(
                "the {} service answers again after {seconds:.1} s",
                self.name
            ));
        }
    }

    fn outage(&self) -> MutexGuard<'_, Option<Outage>> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers of a service, or of a proxy before it, that is starting, stopping or overloaded.
fn means_away(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 502 | 503 | 504)
}

/// One try. A service that is killed can break off in the middle of an answer, so the body
/// belongs to it.
async fn answer(request: RequestBuilder) -> Result<Answer, reqwest::Error> {
    let response = request.send().await?;
    let (status, headers) = (response.status(), response.headers().clone());
    Ok(Answer {
        status,
        headers,
        body: response.bytes().await?.into(),
    })
}

fn accept(answer: Answer) -> Result<Answer, ClientError> {
    let status = answer.status;
    if status.is_success() {
        return Ok(answer);
    }
    let problem: Option<Problem> = serde_json::from_slice(&answer.body).ok();
    let detail = problem.and_then(|problem| problem.detail.or(problem.title));
    let detail = detail.unwrap_or_else(|| {
        status
            .canonical_reason()
            .unwrap_or("no reason given")
            .to_owned()
    });
    Err(ClientError::Refused {
        status: status.as_u16(),
        detail,
    })
}

/// The cause that says most: reqwest's own text only repeats the address.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
