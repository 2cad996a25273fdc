//! Values that travel with one record from the unit of work to its extractors.

use std::any::{Any, TypeId};
use std::fmt;
use std::sync::Arc;

use crate::container::RunAcks;
use crate::extract::Ack;

/// A small map from a type to its one value.
#[derive(Default)]
pub struct Extensions {
    /// A record carries a handful at most, so a scan beats a hash; empty costs no allocation.
    values: Vec<(TypeId, Box<dyn Any + Send>)>,
    /// Apart from them, so that it costs no allocation either.
    ack: Option<(Arc<RunAcks>, usize)>,
}

impl Extensions {
    /// Nothing yet.
    pub const fn new() -> Self {
        Extensions {
            values: Vec::new(),
            ack: None,
        }
    }

    /// Drops all values.
    pub(crate) fn clear(&mut self) {
        self.values.clear();
        self.ack = None;
    }

    /// Puts the acknowledgement of the record at this place of a run.
    pub(crate) fn put_ack(&mut self, run: Arc<RunAcks>, place: usize) {
        self.ack = Some((run, place));
    }

    /// Takes the record's acknowledgement, in a manual ack mode; it can be taken once.
    pub fn take_ack(&mut self) -> Option<Ack> {
        let (run, place) = self.ack.take()?;
        Ack::new(run, place)
    }

    /// Puts `value`, and gives back the one of its type that was there before.
    pub fn insert<T: Send + 'static>(&mut self, value: T) -> Option<T> {
        let before = self.remove();
        self.values.push((TypeId::of::<T>(), Box::new(value)));
        before
    }

    /// The value of type `T`.
    pub fn get<T: 'static>(&self) -> Option<&T> {
        let (_, value) = self
            .values
            .iter()
            .find(|(id, _)| *id == TypeId::of::<T>())?;
        value.downcast_ref()
    }

    /// The value of type `T`, to change.
    pub fn get_mut<T: 'static>(&mut self) -> Option<&mut T> {
        let (_, value) = self
            .values
            .iter_mut()
            .find(|(id, _)| *id == TypeId::of::<T>())?;
        value.downcast_mut()
    }

    /// Takes the value of type `T` out.
    pub fn remove<T: 'static>(&mut self) -> Option<T> {
        let at = self
            .values
            .iter()
            .position(|(id, _)| *id == TypeId::of::<T>())?;
        let (_, value) = self.values.swap_remove(at);
        value.downcast().ok().map(|value| *value)
    }
}

impl fmt::Debug for Extensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extensions")
            .field("len", &self.values.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_by_its_type_and_can_be_taken_once() {
        let mut extensions = Extensions::new();
        assert_eq!(extensions.insert(7u32), None);
        assert_eq!(extensions.insert(8u32), Some(7));
        extensions.insert("text");
        assert_eq!(extensions.get::<&str>(), Some(&"text"));
        assert_eq!(extensions.remove::<u32>(), Some(8));
        assert_eq!(extensions.remove::<u32>(), None);
    }
}
