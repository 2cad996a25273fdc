//! The trace of a request: the caller's, or one that begins here.

use std::sync::Arc;

use ackwell::TRACEPARENT;
use axum::http::HeaderMap;
use uuid::Uuid;

/// The request's `traceparent`; where it has none, or one that is none, a new one.
pub(crate) fn of(headers: &HeaderMap) -> Arc<str> {
    let given = headers
        .get(TRACEPARENT)
        .and_then(|value| value.to_str().ok());
    match given.filter(|text| is_traceparent(text)) {
        Some(text) => text.into(),
        None => new().into(),
    }
}

/// Version 00 of W3C Trace Context, not sampled: nobody recorded what came before.
fn new() -> String {
    let parent = Uuid::new_v4().as_u64_pair().1;
    format!("00-{}-{parent:016x}-00", Uuid::new_v4().simple())
}

/// `version-trace-parent-flags` in small hexadecimal digits. Later versions may go on behind a `-`;
/// `ff` is none, and ids are not all zeros.
fn is_traceparent(text: &str) -> bool {
    let mut parts = text.splitn(5, '-');
    let mut digits = |length: usize| {
        let part = parts.next().unwrap_or_default();
        let hexadecimal = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        (part.len() == length && part.bytes().all(hexadecimal)).then_some(part)
    };
    let zeros = |part: &str| part.bytes().all(|byte| byte == b'0');
    let (Some(version), Some(trace), Some(parent), Some(_)) =
        (digits(2), digits(32), digits(16), digits(2))
    else {
        return false;
    };
    let more = parts.next().is_some();
    version != "ff" && !zeros(trace) && !zeros(parent) && (version != "00" || !more)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_trace_of_the_caller_is_carried_on() {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, TRACE.parse().unwrap());
        assert_eq!(&*of(&headers), TRACE);
    }

    #[test]
    fn a_request_without_a_trace_begins_one() {
        let first = of(&HeaderMap::new());
        assert!(is_traceparent(&first), "{first}");
        assert_ne!(first, of(&HeaderMap::new()));
    }

    #[test]
    fn what_is_no_trace_is_not_carried_on() {
        assert!(is_traceparent(TRACE));
        assert!(is_traceparent(&format!(
            "{}-more",
            TRACE.replacen("00", "01", 1)
        )));
        for text in [
            "",
            "00",
            &TRACE.to_uppercase(),
            &format!("{TRACE}-more"),
            &TRACE.replacen("00", "ff", 1),
            &TRACE.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &TRACE.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &TRACE[..54],
        ] {
            assert!(!is_traceparent(text), "{text}");
        }
    }
}
