//! SCRAM (RFC 5802 with the hashes of RFC 7677): the client shows that it knows the password, then
//! the broker does, and whoever listens in learns neither.

use std::sync::Arc;

use base64::prelude::{BASE64_STANDARD, Engine};

use super::users::{Credential, Hash, ITERATIONS};
use super::{Denied, Step, Users};
use crate::Mechanism;

/// One attempt: the first message, then the proof.
#[derive(Debug)]
pub(super) struct Scram {
    mechanism: Mechanism,
    nonce: String,
    /// What the proof is checked against, once the first message has come.
    asked: Option<Asked>,
}

#[derive(Debug)]
struct Asked {
    name: String,
    user: Option<Arc<str>>,
    credential: Credential,
    /// Repeated in the proof: base64 of the header of the first message.
    binding: String,
    nonce: String,
    /// The first message without its header, and its answer, as the signatures cover them.
    first_messages: String,
}

impl Scram {
    pub(super) fn new(mechanism: Mechanism, nonce: String) -> Self {
        Self {
            mechanism,
            nonce,
            asked: None,
        }
    }

    pub(super) fn step(&mut self, users: &Users, token: &[u8]) -> Result<Step, Denied> {
        let message =
            std::str::from_utf8(token).map_err(|_| Denied::because("a message that is no text"))?;
        match self.asked.take() {
            None => {
                let (asked, answer) = self.ask(users, message).map_err(Denied::because)?;
                self.asked = Some(asked);
                Ok(Step::Challenge(answer.into_bytes()))
            }
            Some(asked) => {
                let proved = prove(&asked, self.mechanism, message);
                proved.map_err(|why| Denied {
                    user: users.known(&asked.name),
                    why,
                })
            }
        }
    }

    /// `n,[a=name],n=name,r=nonce[,extensions]` is answered by `r=nonces,s=salt,i=iterations`.
    fn ask(&self, users: &Users, message: &str) -> Result<(Asked, String), &'static str> {
        let first = First::read(message)?;
        let credential = users.credential(&first.name, self.mechanism);
        let nonce = format!("{}{}", first.nonce, self.nonce);
        let salt = BASE64_STANDARD.encode(&credential.salt);
        let answer = format!("r={nonce},s={salt},i={ITERATIONS}");
        let asked = Asked {
            user: users.known(&first.name),
            name: first.name,
            credential,
            binding: BASE64_STANDARD.encode(first.header),
            nonce,
            first_messages: format!("{},{answer}", first.bare),
        };
        Ok((asked, answer))
    }
}

/// `c=header,r=nonces[,extensions],p=proof` is answered by `v=signature`.
fn prove(asked: &Asked, mechanism: Mechanism, message: &str) -> Result<Step, &'static str> {
    const MALFORMED: &str = "the second message is malformed";
    let (without_proof, proof) = message.rsplit_once(",p=").ok_or(MALFORMED)?;
    let mut fields = without_proof.split(',');
    let binding = fields.next().and_then(|field| field.strip_prefix("c="));
    let nonce = fields.next().and_then(|field| field.strip_prefix("r="));
    if binding != Some(&asked.binding) {
        return Err("the second message does not fit the first");
    }
    if nonce != Some(&asked.nonce) {
        return Err("the second message is of another exchange");
    }
    let proof = BASE64_STANDARD.decode(proof).map_err(|_| MALFORMED)?;

    let hash = Hash::of(mechanism);
    let signed = format!("{},{without_proof}", asked.first_messages);
    let signature = hash.hmac(&asked.credential.stored_key, signed.as_bytes());
    if proof.len() != signature.len() {
        return Err(MALFORMED);
    }
    let client_key: Vec<u8> = proof
        .iter()
        .zip(&signature)
        .map(|(proof, signature)| proof ^ signature)
        .collect();
    // Hashes of what the client sent: how far they agree tells it nothing.
    let right = hash.digest(&client_key) == asked.credential.stored_key;
    match &asked.user {
        Some(user) if right => {
            let own = hash.hmac(&asked.credential.server_key, signed.as_bytes());
            let answer = format!("v={}", BASE64_STANDARD.encode(own));
            Ok(Step::Proved(Arc::clone(user), answer.into_bytes()))
        }
        _ => Err("wrong name or password"),
    }
}

/// The client's first message.
struct First<'a> {
    /// Up to and with the second comma.
    header: &'a str,
    /// What follows.
    bare: &'a str,
    name: String,
    nonce: &'a str,
}

impl<'a> First<'a> {
    fn read(message: &'a str) -> Result<Self, &'static str> {
        const MALFORMED: &str = "the first message is malformed";
        let mut parts = message.splitn(3, ',');
        let (binding, act_as) = (parts.next(), parts.next());
        let bare = parts.next().ok_or(MALFORMED)?;
        match binding {
            // `y`: the client could bind to the channel and knows that the broker can't.
            Some("n" | "y") => {}
            _ => return Err("it asks for channel binding, which is not offered"),
        }
        let mut fields = bare.split(',');
        // An extension before the name is one that must be understood (`m=`).
        let name = fields.next().and_then(|field| field.strip_prefix("n="));
        let name = name.and_then(unescape).ok_or(MALFORMED)?;
        let nonce = fields.next().and_then(|field| field.strip_prefix("r="));
        let nonce = nonce.filter(|nonce| !nonce.is_empty()).ok_or(MALFORMED)?;
        let act_as = match act_as {
            Some("") | None => None,
            Some(act_as) => {
                let act_as = act_as.strip_prefix("a=").and_then(unescape);
                Some(act_as.ok_or(MALFORMED)?)
            }
        };
        if act_as.is_some_and(|act_as| act_as != name) {
            return Err("it asks to act as somebody else");
        }
        if fields.any(|field| field == "tokenauth=true") {
            return Err("delegation tokens are not served");
        }
        Ok(Self {
            header: &message[..message.len() - bare.len()],
            bare,
            name,
            nonce,
        })
    }
}

/// A name, in which `,` and `=` are written as `=2C` and `=3D`.
fn unescape(text: &str) -> Option<String> {
    let mut parts = text.split('=');
    let mut name = parts.next()?.to_owned();
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        name.push(match code {
            "2C" => ',',
            "3D" => '=',
            _ => return None,
        });
        name.push_str(rest);
    }
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::User;

    const MECHANISMS: [Mechanism; 2] = [Mechanism::ScramSha256, Mechanism::ScramSha512];

    fn users() -> Users {
        let users = [User::new("orders", "s3cret"), User::new("a,b=c", "x")];
        Users::new(&users, [7; 32])
    }

    fn text(step: Result<Step, Denied>) -> String {
        match step {
            Ok(Step::Challenge(token) | Step::Proved(_, token)) => {
                String::from_utf8(token).unwrap()
            }
            Err(denied) => panic!("{denied:?}"),
        }
    }

    /// A client of RFC 5802: its proof, and the signature that it expects in return.
    fn client(mechanism: Mechanism, password: &str, bare: &str, answer: &str) -> (String, String) {
        let field = |prefix| {
            let mut fields = answer.split(',');
            fields.find_map(|field| field.strip_prefix(prefix)).unwrap()
        };
        let salt = BASE64_STANDARD.decode(field("s=")).unwrap();
        let hash = Hash::of(mechanism);
        let salted = hash.salted(password, &salt, field("i=").parse().unwrap());
        let client_key = hash.hmac(&salted, b"Client Key");
        let without_proof = format!("c=biws,r={}", field("r="));
        let signed = format!("{bare},{answer},{without_proof}");
        let signature = hash.hmac(&hash.digest(&client_key), signed.as_bytes());
        let proof: Vec<u8> = client_key
            .iter()
            .zip(&signature)
            .map(|(key, signature)| key ^ signature)
            .collect();
        let server_key = hash.hmac(&salted, b"Server Key");
        let expected = hash.hmac(&server_key, signed.as_bytes());
        (
            format!("{without_proof},p={}", BASE64_STANDARD.encode(proof)),
            format!("v={}", BASE64_STANDARD.encode(expected)),
        )
    }

    fn log_in(mechanism: Mechanism, name: &str, password: &str) -> Result<Step, Denied> {
        let users = users();
        let mut scram = Scram::new(mechanism, "server".to_owned());
        let bare = format!("n={name},r=client");
        let answer = text(scram.step(&users, format!("n,,{bare}").as_bytes()));
        assert!(answer.starts_with("r=clientserver,s="));
        let (proof, signature) = client(mechanism, password, &bare, &answer);
        let step = scram.step(&users, proof.as_bytes())?;
        if let Step::Proved(_, token) = &step {
            assert_eq!(token, signature.as_bytes(), "the broker proves itself, too");
        }
        Ok(step)
    }

    #[test]
    fn the_right_password_is_proved_without_being_sent() {
        for mechanism in MECHANISMS {
            for (written, name, password) in
                [("orders", "orders", "s3cret"), ("a=2Cb=3Dc", "a,b=c", "x")]
            {
                match log_in(mechanism, written, password) {
                    Ok(Step::Proved(user, _)) => assert_eq!(&*user, name),
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    #[test]
    fn a_wrong_password_and_an_unknown_user_are_refused_alike() {
        for mechanism in MECHANISMS {
            let wrong = log_in(mechanism, "orders", "other").unwrap_err();
            let unknown = log_in(mechanism, "nobody", "s3cret").unwrap_err();
            assert_eq!(wrong.why, unknown.why);
            assert_eq!(wrong.user.as_deref(), Some("orders"));
            assert_eq!(unknown.user, None);
        }
    }

    #[test]
    fn a_user_that_does_not_exist_has_always_the_same_salt() {
        let users = users();
        let [first, second] = ["1", "2"].map(|nonce| {
            let mut scram = Scram::new(Mechanism::ScramSha256, nonce.to_owned());
            let answer = text(scram.step(&users, b"n,,n=nobody,r=x"));
            answer.split(",s=").nth(1).unwrap().to_owned()
        });
        assert_eq!(first, second);
    }

    /// The example of RFC 7677, section 3, with its salt and nonces.
    #[test]
    fn the_example_of_the_rfc_comes_out() {
        let hash = Hash::of(Mechanism::ScramSha256);
        let salt = BASE64_STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let salted = hash.salted("pencil", &salt, ITERATIONS);
        let asked = Asked {
            name: "user".to_owned(),
            user: Some("user".into()),
            credential: Credential {
                stored_key: hash.digest(&hash.hmac(&salted, b"Client Key")),
                server_key: hash.hmac(&salted, b"Server Key"),
                salt,
            },
            binding: "biws".to_owned(),
            nonce: "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".to_owned(),
            first_messages: "n=user,r=rOprNGfwEbeRWgbNEkqO,\
                r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
                .to_owned(),
        };
        let message = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
            p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let proved = prove(&asked, Mechanism::ScramSha256, message);
        let signature = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
        let expected = Step::Proved("user".into(), signature.as_bytes().to_vec());
        assert_eq!(proved, Ok(expected));
    }

    #[test]
    fn malformed_first_messages_are_refused() {
        for message in [
            "",
            "n",
            "n,,",
            "n,,n=,r=x",
            "n,,n=orders",
            "n,,n=orders,r=",
            "n,,r=x,n=orders",
            "n,,m=must,n=orders,r=x",
            "n,,n=or=ders,r=x",
            "n,,n=orders=2,r=x",
            "n,a=admin,n=orders,r=x",
            "n,admin,n=orders,r=x",
            "p=tls-unique,,n=orders,r=x",
            "n,,n=orders,r=x,tokenauth=true",
        ] {
            let mut scram = Scram::new(Mechanism::ScramSha256, "s".to_owned());
            assert!(
                scram.step(&users(), message.as_bytes()).is_err(),
                "{message:?}"
            );
        }
        let mut scram = Scram::new(Mechanism::ScramSha256, "s".to_owned());
        assert!(scram.step(&users(), &[0xff]).is_err());
    }

    #[test]
    fn malformed_second_messages_are_refused() {
        for message in [
            "",
            "c=biws,r=cs",
            "c=biws,r=cs,p=",
            "c=biws,r=cs,p=!",
            "c=biws,r=c,p=AAAA",
            "c=eSws,r=cs,p=AAAA",
            "r=cs,c=biws,p=AAAA",
            ",p=",
        ] {
            let mut scram = Scram::new(Mechanism::ScramSha256, "s".to_owned());
            text(scram.step(&users(), b"n,,n=orders,r=c"));
            assert!(
                scram.step(&users(), message.as_bytes()).is_err(),
                "{message:?}"
            );
        }
    }
}
