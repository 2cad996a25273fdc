use super::FromRecord;
use crate::context::{Context, Setup, SetupError};
use crate::failure::{Class, Failure};

/// A clone of a value given to [`App::state`](crate::App::state). If the app has none of this
/// type, the listener does not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State<T>(
    /// The value.
    pub T,
);

impl<T: Clone + Send + Sync + 'static> FromRecord for State<T> {
    const LOOKS_AT_HEADERS: bool = false;

    fn from_record(cx: &mut Context) -> Result<Self, Failure> {
        let missing = || Failure::new(Class::Stop, SetupError::missing_state::<T>().to_string());
        cx.state::<T>().cloned().map(Self).ok_or_else(missing)
    }

    fn prepare(setup: &mut Setup<'_>) -> Result<(), SetupError> {
        setup
            .state::<T>()
            .map(|_| ())
            .ok_or_else(SetupError::missing_state::<T>)
    }
}
