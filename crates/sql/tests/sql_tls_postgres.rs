//! TLS to PostgreSQL: who is believed, and what is said when nobody is. For a server that
//! `scripts/postgres.sh start --tls` has started, whose certificate is for `localhost`; and what a server without
//! TLS is told. Without `DATABASE_URL` of a server there is nothing to see.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod events;

use std::error::Error;
use std::path::PathBuf;

use ackwell_sql::{Database, params};
use events::SCHEMA;
use events::database_url::{database_url, server};
use tempfile::TempDir;

/// A server that speaks TLS only.
struct Encrypted {
    folder: TempDir,
    address: String,
    authority: String,
}

impl Encrypted {
    fn new() -> Option<Self> {
        let server = server()?;
        let (address, _) = server.split_once("?sslmode=verify-full&sslrootcert=")?;
        let folder = tempfile::tempdir().unwrap();
        let url = database_url(folder.path());
        let (_, parameters) = url.split_once("&sslrootcert=").unwrap();
        let (authority, _) = parameters.split_once('&').unwrap();
        Some(Self {
            address: address.to_owned(),
            authority: authority.to_owned(),
            folder,
        })
    }

    /// The URL of the same database with other parameters, and the authority where `{}` stands.
    fn url(&self, parameters: &str) -> String {
        let url = database_url(self.folder.path());
        let (_, schema) = url.split_once("&schema=").unwrap();
        let parameters = parameters.replace("{}", &self.authority);
        format!("{}?{parameters}&schema={schema}", self.address)
    }

    /// By its address, for which its certificate is not.
    fn by_number(&self, parameters: &str) -> String {
        self.url(parameters).replace("@localhost:", "@127.0.0.1:")
    }

    /// An authority that has nothing to do with the server.
    fn stranger(&self) -> PathBuf {
        let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let path = self.folder.path().join("stranger.crt");
        std::fs::write(&path, signed.cert.pem()).unwrap();
        path
    }
}

/// Opens it, writes, reads; answers whether what was read came encrypted.
async fn is_encrypted(url: &str) -> bool {
    let db = Database::open(url, SCHEMA).await.unwrap();
    let mut tx = db.begin();
    let insert = "INSERT INTO items (id) VALUES (1) ON CONFLICT DO NOTHING";
    tx.execute(insert, params![]).await.unwrap();
    tx.commit().await.unwrap();
    let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let row = db.query_opt(sql, params![]).await.unwrap();
    row.unwrap().get("ssl").unwrap()
}

/// What is said of a database that can't be opened.
async fn refusal(url: &str) -> String {
    let error = Database::open(url, SCHEMA).await.unwrap_err();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    assert!(!text.contains("ackwell-tests"), "the password: {text}");
    text
}

#[tokio::test]
async fn a_server_is_believed_by_its_authority_and_its_name() {
    let Some(server) = Encrypted::new() else {
        return;
    };
    let verified = "sslmode=verify-full&sslrootcert={}";
    assert!(is_encrypted(&server.url(verified)).await);
    let text = refusal(&server.by_number(verified)).await;
    assert!(text.contains("for other names than 127.0.0.1"), "{text}");
    let by_authority = "sslmode=verify-ca&sslrootcert={}";
    assert!(is_encrypted(&server.by_number(by_authority)).await);
}

#[tokio::test]
async fn a_server_whose_certificate_somebody_else_has_signed_is_refused() {
    let Some(server) = Encrypted::new() else {
        return;
    };
    let stranger = server.stranger();
    for mode in ["verify-full", "verify-ca", "require"] {
        let parameters = format!("sslmode={mode}&sslrootcert={}", stranger.display());
        let text = refusal(&server.url(&parameters)).await;
        assert!(
            text.contains("has signed the server's certificate"),
            "{text}"
        );
    }
    let text = refusal(&server.url("sslmode=verify-full&sslrootcert=system")).await;
    assert!(text.contains("sslrootcert"), "{text}");
}

#[tokio::test]
async fn without_an_authority_there_is_encryption_all_the_same() {
    let Some(server) = Encrypted::new() else {
        return;
    };
    for parameters in ["sslmode=require", "sslmode=prefer", ""] {
        assert!(is_encrypted(&server.by_number(parameters)).await);
    }
    // The login proves that the server knows the password, and that nobody stands in between.
    assert!(is_encrypted(&server.by_number("sslmode=require&channel_binding=require")).await);
}

#[tokio::test]
async fn who_comes_without_encryption_is_told_by_the_server() {
    let Some(server) = Encrypted::new() else {
        return;
    };
    let text = refusal(&server.url("sslmode=disable")).await;
    assert!(text.contains("no encryption"), "{text}");
}

#[tokio::test]
async fn a_server_without_tls_is_refused_where_it_is_asked_for() {
    let Some(server) = server().filter(|url| !url.contains('?')) else {
        return;
    };
    let text = refusal(&format!("{server}?sslmode=require")).await;
    assert!(text.contains("server does not support TLS"), "{text}");
    let folder = tempfile::tempdir().unwrap();
    let text = refusal(&format!("{server}?sslmode=verify-full")).await;
    assert!(text.contains("sslrootcert"), "{text}");
    let preferred = format!("{}&sslmode=prefer", database_url(folder.path()));
    assert!(!is_encrypted(&preferred).await);
}
