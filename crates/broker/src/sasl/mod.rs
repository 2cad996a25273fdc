//! Logging in: the exchange of tokens that proves who a client is.
//!
//! It is bytes in and bytes out; how tokens travel is the business of
//! [`api::login`](crate::api::login). What a client can learn from a refusal is the same whether the
//! user does not exist or the password is wrong, or names could be tried out.
//!
//! | file | what it does |
//! |---|---|
//! | [`users`] | who may log in, and what is kept of their passwords |
//! | [`plain`] | PLAIN: name and password in one token |
//! | [`scram`] | SCRAM: proof of the password in two |

mod plain;
mod scram;
mod users;

use std::sync::Arc;

pub(crate) use users::{ITERATIONS, Users};

use crate::Mechanism;
use scram::Scram;

/// One attempt to log in.
#[derive(Debug)]
pub(crate) struct Exchange {
    users: Arc<Users>,
    mechanism: Mechanism,
    state: State,
}

#[derive(Debug)]
enum State {
    Plain,
    Scram(Box<Scram>),
    Over,
}

/// What a token leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The client has to answer this.
    Challenge(Vec<u8>),
    /// It is this user; the last token proves in turn who the broker is, or is empty.
    Proved(Arc<str>, Vec<u8>),
}

/// Why somebody is not let in. `why` is for the broker's log; a client is told less.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Denied {
    /// The name claimed, where it is a user's; any other text may be a password in the wrong field.
    pub(crate) user: Option<Arc<str>>,
    pub(crate) why: &'static str,
}

impl Exchange {
    /// `nonce` must be unpredictable and printable, without a comma.
    pub(crate) fn new(users: Arc<Users>, mechanism: Mechanism, nonce: String) -> Self {
        let state = match mechanism {
            Mechanism::Plain => State::Plain,
            Mechanism::ScramSha256 | Mechanism::ScramSha512 => {
                State::Scram(Box::new(Scram::new(mechanism, nonce)))
            }
        };
        Self {
            users,
            mechanism,
            state,
        }
    }

    pub(crate) fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// Takes the client's next token.
    ///
    /// # Errors
    /// When it proves nothing, or the wrong thing. The attempt is over then.
    pub(crate) fn step(&mut self, token: &[u8]) -> Result<Step, Denied> {
        let step = match &mut self.state {
            State::Plain => plain::check(&self.users, token),
            State::Scram(scram) => scram.step(&self.users, token),
            State::Over => Err(Denied::because("a token after the last one")),
        };
        if !matches!(step, Ok(Step::Challenge(_))) {
            self.state = State::Over;
        }
        step
    }
}

impl Denied {
    fn because(why: &'static str) -> Self {
        Self { user: None, why }
    }
}
