//! Writing [`Event`](crate::Event) for an enum: what is the same for every one of them.

/// Implements [`Event`](crate::Event) for an enum whose variants each hold the struct of one event type.
///
/// A variant's name is its type in the header `eventType`, and in the field `event_type` of the value
/// where the enum is tagged as here. The topic comes after `on`; `keyed by` names the field, which every
/// struct has, that is the aggregate's id and so the record's key. It converts to text by `ToString`.
///
/// ```
/// use ackwell::{Event, Topic};
/// use serde::{Deserialize, Serialize};
///
/// const PAYMENT_EVENTS: Topic<PaymentEvent> = Topic::new("payment-events").partitions(6);
///
/// ackwell::events! {
///     /// What is said about payments.
///     #[derive(Debug, Serialize, Deserialize)]
///     #[serde(tag = "event_type")]
///     pub enum PaymentEvent on PAYMENT_EVENTS, keyed by order_id {
///         /// The customer has paid.
///         PaymentCharged(PaymentCharged),
///         /// The customer has it back.
///         PaymentRefunded(PaymentRefunded),
///     }
/// }
///
/// #[derive(Debug, Serialize, Deserialize)]
/// pub struct PaymentCharged { order_id: u64, amount: String }
/// #[derive(Debug, Serialize, Deserialize)]
/// pub struct PaymentRefunded { order_id: u64 }
///
/// let event = PaymentEvent::PaymentRefunded(PaymentRefunded { order_id: 7 });
/// assert_eq!((event.event_type(), &*event.aggregate_id()), ("PaymentRefunded", "7"));
/// assert_eq!(PaymentEvent::TYPES, ["PaymentCharged", "PaymentRefunded"]);
/// ```
#[macro_export]
macro_rules! events {
    (
        $(#[$about:meta])*
        $vis:vis enum $name:ident on $topic:path, keyed by $key:ident {
            $($(#[$note:meta])* $variant:ident($body:ty)),+ $(,)?
        }
    ) => {
        $(#[$about])*
        $vis enum $name {
            $($(#[$note])* $variant($body),)+
        }

        impl $crate::Event for $name {
            const TOPIC: $crate::Topic<Self> = $topic;
            const TYPES: &'static [&'static str] = &[$(stringify!($variant)),+];

            fn event_type(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => stringify!($variant),)+
                }
            }

            fn aggregate_id(&self) -> ::std::borrow::Cow<'_, str> {
                match self {
                    $(Self::$variant(event) => ::std::borrow::Cow::Owned(event.$key.to_string()),)+
                }
            }
        }

        $(
            impl ::std::convert::From<$body> for $name {
                fn from(event: $body) -> Self {
                    Self::$variant(event)
                }
            }
        )+
    };
}
