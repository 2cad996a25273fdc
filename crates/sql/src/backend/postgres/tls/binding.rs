//! What ties a SCRAM login to the TLS connection: `tls-server-end-point` of
//! [RFC 5929](https://www.rfc-editor.org/rfc/rfc5929#section-4), a hash of the server's certificate by the
//! algorithm of the certificate's own signature.

use ring::digest::{Algorithm, SHA256, SHA384, SHA512, digest};

const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;

/// 1.2.840.113549.1.1, signatures by RSA; the last number says with which hash.
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
/// 1.2.840.10045.4.3, signatures by ECDSA with SHA-2.
const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03];

/// The hash; `None` where it is not known by which algorithm the server would make it.
pub(super) fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let algorithm = hash_of(signature_algorithm(certificate)?)?;
    Some(digest(algorithm, certificate).as_ref().to_vec())
}

fn hash_of(algorithm: &[u8]) -> Option<&'static Algorithm> {
    let (last, family) = algorithm.split_last()?;
    match (family, last) {
        // MD5 and SHA-1 are replaced by SHA-256, says the RFC.
        (RSA, 4 | 5 | 11) | (ECDSA, 2) => Some(&SHA256),
        (RSA, 12) | (ECDSA, 3) => Some(&SHA384),
        (RSA, 13) | (ECDSA, 4) => Some(&SHA512),
        _ => None,
    }
}

/// Certificate ::= SEQUENCE { what is signed, SEQUENCE { algorithm, .. }, signature }
fn signature_algorithm(certificate: &[u8]) -> Option<&[u8]> {
    let (tag, certificate, _) = element(certificate)?;
    let (_, _, behind) = element(Some(certificate).filter(|_| tag == SEQUENCE)?)?;
    let (tag, algorithm, _) = element(behind)?;
    let (kind, name, _) = element(Some(algorithm).filter(|_| tag == SEQUENCE)?)?;
    Some(name).filter(|_| kind == OBJECT_IDENTIFIER)
}

/// The first element's tag and content, and what stands behind it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = bytes.split_first_chunk::<2>()?;
    let (len, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let len = digits
                .iter()
                .fold(0, |len, digit| len << 8 | usize::from(*digit));
            (len, rest)
        }
        _ => return None,
    };
    let (content, behind) = rest.split_at_checked(len)?;
    Some((tag, content, behind))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_hash_is_that_of_the_certificates_signature() {
        let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = signed.cert.der();
        let algorithm = signature_algorithm(certificate).unwrap();
        assert_eq!(algorithm, [ECDSA, &[2]].concat());
        let expected = digest(&SHA256, certificate).as_ref().to_vec();
        assert_eq!(end_point(certificate), Some(expected));
    }

    #[test]
    fn an_unknown_signature_ties_nothing() {
        // Ed25519, for which no hash is defined.
        assert!(hash_of(&[0x2b, 0x65, 0x70]).is_none());
        assert!(hash_of(&[]).is_none());
    }

    proptest! {
        #[test]
        fn bytes_from_outside_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = end_point(&bytes);
        }
    }
}
