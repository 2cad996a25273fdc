//! Several extractors as one: what a batch takes from each of its records.

use super::FromRecord;
use crate::context::{Context, Setup, SetupError};
use crate::failure::Failure;

macro_rules! tuple {
    ($($extractor:ident),*) => {
        impl<$($extractor: FromRecord),*> FromRecord for ($($extractor,)*) {
            const LOOKS_AT_HEADERS: bool = false $(|| $extractor::LOOKS_AT_HEADERS)*;

            fn from_record(cx: &mut Context) -> Result<Self, Failure> {
                Ok(($($extractor::from_record(cx)?,)*))
            }

            fn prepare(setup: &mut Setup<'_>) -> Result<(), SetupError> {
                $($extractor::prepare(setup)?;)*
                Ok(())
            }
        }
    };
}

tuple!(A, B);
tuple!(A, B, C);
tuple!(A, B, C, D);
