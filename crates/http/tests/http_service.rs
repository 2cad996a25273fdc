//! A service as its clients see it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::time::Duration;

use ackwell::observe::{Health, Kind, Metrics, Status};
use ackwell_http::{JsonBody, Limits, PathParams, Problem, QueryParams, Server, bind, ops_of};
use axum::Router;
use axum::http::StatusCode;
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    quantity: u32,
}

#[derive(Deserialize)]
struct Page {
    limit: u8,
}

fn routes() -> Router {
    Router::new()
        .route(
            "/orders",
            post(async |JsonBody(order): JsonBody<Order>| order.quantity.to_string()),
        )
        .route(
            "/orders/{id}",
            get(async |PathParams(id): PathParams<u64>| id.to_string()),
        )
        .route(
            "/page",
            get(async |QueryParams(page): QueryParams<Page>| page.limit.to_string()),
        )
        .route("/panic", get(async || -> StatusCode { panic!("a defect") }))
        .route(
            "/slow",
            get(async || std::future::pending::<StatusCode>().await),
        )
        .route(
            "/reused",
            get(async || {
                Problem::unprocessable("this key was used with another body")
                    .kind("/problems/key-reused")
                    .instance("/orders/7")
                    .with("key", "row-1")
                    .with("status", 200)
            }),
        )
}

/// A server on a free port; it stops with its `stop`.
struct Served {
    address: String,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Served {
    async fn start(router: Router, limits: Limits) -> Self {
        let listener = bind("0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert!(
            address.ip().is_loopback(),
            "a bare port is taken on loopback"
        );
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let task = tokio::spawn(Server::new(router).limits(limits).serve(listener, stopped));
        Self {
            address: address.to_string(),
            stop,
            task,
        }
    }

    async fn call(
        &self,
        request: impl FnOnce(reqwest::Client, String) -> reqwest::RequestBuilder,
    ) -> (u16, Option<String>, Value) {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let response = request(client, format!("http://{}", self.address))
            .send()
            .await
            .unwrap();
        let status = response.status().as_u16();
        let media = response
            .headers()
            .get("content-type")
            .map(|value| value.to_str().unwrap().to_owned());
        let text = response.text().await.unwrap();
        (
            status,
            media,
            serde_json::from_str(&text).unwrap_or(Value::String(text)),
        )
    }

    async fn get(&self, path: &str) -> (u16, Option<String>, Value) {
        self.call(|client, base| client.get(base + path)).await
    }

    async fn post(
        &self,
        media: &'static str,
        body: impl Into<reqwest::Body>,
    ) -> (u16, Option<String>, Value) {
        self.call(|client, base| {
            client
                .post(base + "/orders")
                .header("content-type", media)
                .body(body)
        })
        .await
    }
}

#[tokio::test]
async fn a_bad_body_is_answered_with_what_is_wrong_where_and_how_to_mend_it() {
    let limits = Limits {
        body_bytes: 100,
        ..Limits::default()
    };
    let served = Served::start(routes(), limits).await;
    assert_eq!(
        served
            .post("application/json; charset=utf-8", "{\"quantity\":3}")
            .await
            .2,
        3
    );
    let json = "application/json";
    for (media, body, status, says) in [
        (
            json,
            "{\"quantity\":",
            400,
            "EOF while parsing a value, at line 1, column 12",
        ),
        (json, "{'quantity':1}", 400, "line 1, column 2"),
        (json, "", 400, "the body is empty"),
        (json, "\u{feff}{}", 400, "line 1"),
        (
            json,
            "{\"quantity\":3,\n\"x\":1}",
            422,
            "unknown field `x`, expected `quantity`, at line 2, column 3",
        ),
        (json, "{}", 422, "missing field `quantity`"),
        (
            json,
            "{\"quantity\":-1}",
            422,
            "invalid value: integer `-1`",
        ),
        (json, "{\"quantity\":\"3\"}", 422, "invalid type: string"),
        (
            json,
            "{\"quantity\":3} trailing",
            400,
            "trailing characters",
        ),
        (
            "text/plain",
            "{\"quantity\":3}",
            415,
            "content-type: application/json",
        ),
    ] {
        let (code, content_type, problem) = served.post(media, body).await;
        assert_eq!(code, status, "{body}: {problem}");
        assert_eq!(content_type.as_deref(), Some("application/problem+json"));
        assert_eq!(problem["status"], status);
        assert!(problem["title"].is_string() && problem["type"].is_string());
        assert!(
            problem["detail"].as_str().unwrap().contains(says),
            "{problem} without {says}"
        );
    }
    let (code, _, problem) = served.post(json, " ".repeat(101)).await;
    assert_eq!((code, &problem["status"]), (413, &Value::from(413)));
}

#[tokio::test]
async fn everything_that_is_not_an_answer_is_a_problem() {
    let served = Served::start(routes(), Limits::default()).await;
    for (path, status, says) in [
        ("/nowhere", 404, "no such route"),
        ("/orders/seven", 404, "seven"),
        ("/page?limit=1000", 400, "limit"),
        ("/panic", 500, "defect"),
    ] {
        let (code, media, problem) = served.get(path).await;
        assert_eq!(
            (code, media.as_deref()),
            (status, Some("application/problem+json")),
            "{path}"
        );
        assert!(
            problem["detail"].as_str().unwrap().contains(says),
            "{problem} without {says}"
        );
    }
    let (code, _, problem) = served.get("/orders").await;
    assert_eq!(
        (code, &problem["title"]),
        (405, &Value::from("Method not allowed"))
    );
}

#[tokio::test]
async fn a_problem_carries_its_members_and_its_status_stays() {
    let served = Served::start(routes(), Limits::default()).await;
    let (code, _, problem) = served.get("/reused").await;
    assert_eq!(code, 422);
    assert_eq!(
        problem,
        serde_json::json!({
            "type": "/problems/key-reused", "title": "Unacceptable value", "status": 422,
            "detail": "this key was used with another body", "instance": "/orders/7", "key": "row-1",
        })
    );
}

#[tokio::test]
async fn requests_over_the_limits_are_told_so() {
    let limits = Limits {
        requests: 1,
        request_wait: Duration::from_millis(300),
        ..Limits::default()
    };
    let served = Served::start(routes(), limits).await;
    let (slow, (code, ..)) = tokio::join!(served.get("/slow"), async {
        loop {
            let answer = served.get("/orders/1").await;
            if answer.0 != 200 {
                return answer;
            }
        }
    });
    assert_eq!((slow.0, code), (503, 503));
    assert!(slow.2["detail"].as_str().unwrap().contains("too long"));
    assert_eq!(
        served.get("/orders/1").await.0,
        200,
        "the place is free again"
    );
}

#[tokio::test]
async fn a_client_that_sends_its_head_too_slowly_is_let_go() {
    let limits = Limits {
        header_wait: Duration::from_millis(100),
        ..Limits::default()
    };
    let served = Served::start(routes(), limits).await;
    let mut slow = TcpStream::connect(&served.address).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
    let mut answer = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(5), slow.read_to_end(&mut answer)).await;
    assert!(closed.is_ok(), "the connection was closed");
}

#[tokio::test]
async fn a_stop_finishes_requests_in_work_and_drops_those_that_never_end() {
    let limits = Limits {
        stop_wait: Duration::from_millis(200),
        ..Limits::default()
    };
    let served = Served::start(routes(), limits).await;
    let mut idle = TcpStream::connect(&served.address).await.unwrap();
    idle.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(served.get("/orders/1").await.0, 200);
    served.stop.cancel();
    tokio::time::timeout(Duration::from_secs(5), served.task)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(
        TcpStream::connect(&served.address).await.is_err(),
        "nobody listens any more"
    );
}

#[tokio::test]
async fn a_port_in_use_is_named_with_a_mend() {
    let taken = bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = bind(&address).await.unwrap_err().to_string();
    assert!(
        error.contains(&address) && error.contains("choose another port"),
        "{error}"
    );
}

#[tokio::test]
async fn health_and_readiness_differ_where_a_restart_would_not_help() {
    let (health, metrics) = (Health::default(), Metrics::new());
    let broker = health.add(Kind::Broker, "kafka");
    let listener = health.add(Kind::Listener, "orders");
    let served = Served::start(ops_of(health, metrics), Limits::default()).await;
    let codes = async || {
        (
            served.get("/healthz").await.0,
            served.get("/readyz").await.0,
        )
    };

    assert_eq!(codes().await, (200, 503), "starting");
    broker.report(Status::Running);
    listener.report(Status::Running);
    assert_eq!(codes().await, (200, 200));
    broker.report(Status::Degraded("no broker answers at x:9092".to_owned()));
    assert_eq!(
        codes().await,
        (200, 503),
        "a restart does not bring the broker back"
    );
    let (_, _, body) = served.get("/readyz").await;
    assert_eq!(
        body["reasons"][0],
        "broker `kafka` is degraded: no broker answers at x:9092"
    );
    assert_eq!(body["components"][1]["status"], "running");
    broker.report(Status::Running);
    listener.report(Status::Failed("the handler said stop".to_owned()));
    assert_eq!(codes().await, (503, 503));
}

#[tokio::test]
async fn metrics_are_openmetrics_text() {
    let served = Served::start(ops_of(Health::default(), Metrics::new()), Limits::default()).await;
    let (code, media, text) = served.get("/metrics").await;
    assert_eq!(code, 200);
    assert!(media.unwrap().starts_with("application/openmetrics-text"));
    assert!(text.as_str().unwrap().ends_with("# EOF\n"));
}
