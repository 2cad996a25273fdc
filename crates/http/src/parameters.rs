//! Path and query parameters whose refusals are problems.

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::problem::Problem;

/// The route's parameters, as axum's `Path`; what does not parse is answered with a 404 problem,
/// since no such resource can exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathParams<T>(
    /// The parameters.
    pub T,
);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for PathParams<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(parameters)) => Ok(Self(parameters)),
            Err(rejection) => {
                Err(Problem::not_found(rejection.body_text()).instance(parts.uri.path()))
            }
        }
    }
}

/// The query's parameters, as axum's `Query`; what does not parse is answered with a 400 problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryParams<T>(
    /// The parameters.
    pub T,
);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for QueryParams<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(parameters)) => Ok(Self(parameters)),
            Err(rejection) => Err(Problem::bad_request(rejection.body_text())),
        }
    }
}
