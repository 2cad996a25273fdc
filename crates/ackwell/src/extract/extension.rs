use super::FromRecord;
use crate::context::{Context, short_name};
use crate::failure::{Class, Failure};

/// A clone of a value that a [layer](crate::layer) put into the
/// [request](crate::layer::Request::extensions_mut).
///
/// A layer may put it there or not, which only a record can show: without it the listener stops,
/// since no record would fare better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension<T>(
    /// The value.
    pub T,
);

impl<T: Clone + Send + 'static> FromRecord for Extension<T> {
    const LOOKS_AT_HEADERS: bool = false;

    fn from_record(cx: &mut Context) -> Result<Self, Failure> {
        let missing = || {
            let name = short_name::<T>();
            Failure::new(
                Class::Stop,
                format!("no layer has put a `{name}` into the request"),
            )
        };
        cx.extensions().get().cloned().map(Self).ok_or_else(missing)
    }
}
