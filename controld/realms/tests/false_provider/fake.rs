//! An OpenID provider that says what a test wants.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use horcrux_realms::oidc::Settings;
use horcrux_test_parts::Authority;
use horcrux_transport::secret::Secret;
use horcrux_transport::server::{Incoming, Limits, serve};
use horcrux_transport::tasks::Stop;
use horcrux_transport::tls::{Identity, public_server};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub(crate) struct Fake {
    pub(crate) issuer: String,
    authorities: PathBuf,
    told: Arc<Mutex<Told>>,
    // Both end with the test.
    _server: JoinSet<()>,
    _dir: TempDir,
}

/// What it answers, by path, and what it was asked.
pub(crate) struct Told {
    pub(crate) answers: Vec<(&'static str, StatusCode, String)>,
    pub(crate) asked: Vec<String>,
    pub(crate) location: Option<String>,
}

impl Fake {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::make(dir.path()).unwrap();
        let identity = Identity::from_files(&authority.certificate(), &authority.key()).unwrap();
        let (_keep, tls) = watch::channel(public_server(&identity, &identity).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let told = Arc::new(Mutex::new(Told { answers: Vec::new(), asked: Vec::new(), location: None }));
        let limits = Limits {
            connections: 32,
            connections_per_source: 32,
            handshakes_per_source: 32,
            streams_per_connection: 8,
        };
        let all = Arc::clone(&told);
        let service = move |request: Request<Incoming>| {
            let answer = answer(&mut all.lock().unwrap(), request.uri().path());
            async move { Ok::<_, Infallible>(answer) }
        };
        let mut server = JoinSet::new();
        server.spawn(serve(listener, tls, limits, service, Stop::new()));
        let issuer = format!("https://{address}");
        let fake = Self { issuer, authorities: authority.ca(), told, _server: server, _dir: dir };
        fake.says("/.well-known/openid-configuration", &fake.metadata());
        fake
    }

    pub(crate) fn metadata(&self) -> Value {
        let at = |path: &str| format!("{}{path}", self.issuer);
        json!({
            "issuer": self.issuer,
            "authorization_endpoint": at("/authorize"),
            "token_endpoint": at("/token"),
            "jwks_uri": at("/keys"),
            "userinfo_endpoint": at("/userinfo"),
            "device_authorization_endpoint": at("/device"),
        })
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings {
            issuer: self.issuer.clone(),
            client_id: "horcrux".to_owned(),
            client_secret: Some(Secret::from(SECRET.to_owned())),
            scopes: vec!["profile".to_owned()],
            authorities: Some(self.authorities.clone()),
            name_claim: "preferred_username".to_owned(),
            groups_claim: Some("groups".to_owned()),
            redirect_url: "https://controller.example:8006/oidc/corp".to_owned(),
            timeout: Duration::from_secs(10),
        }
    }

    pub(crate) fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap()
    }

    pub(crate) fn says(&self, path: &'static str, answer: &Value) {
        self.answers(path, StatusCode::OK, &answer.to_string());
    }

    pub(crate) fn answers(&self, path: &'static str, status: StatusCode, body: &str) {
        let mut told = self.told();
        told.answers.retain(|(at, ..)| *at != path);
        told.answers.push((path, status, body.to_owned()));
    }

    pub(crate) fn gives(&self, id_token: &str) {
        self.says("/token", &json!({ "access_token": "a", "token_type": "Bearer", "id_token": id_token }));
    }

    pub(crate) fn times_asked(&self, path: &str) -> usize {
        self.told().asked.iter().filter(|at| *at == path).count()
    }
}

pub(crate) const SECRET: &str = "the client's secret";

fn answer(told: &mut Told, path: &str) -> Response<Full<Bytes>> {
    told.asked.push(path.to_owned());
    let found = told.answers.iter().find(|(at, ..)| *at == path);
    let (status, body) =
        found.map_or((StatusCode::NOT_FOUND, ""), |(_, status, body)| (*status, body.as_str()));
    let mut response = Response::builder().status(status);
    if let Some(location) = &told.location {
        response = response.header("location", location);
    }
    response.body(Full::from(body.to_owned())).unwrap()
}

/// A key that tokens are signed with, and what is published of it.
pub(crate) struct Key {
    pair: EcdsaKeyPair,
    id: &'static str,
}

impl Key {
    pub(crate) fn new(id: &'static str) -> Self {
        let random = SystemRandom::new();
        let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.as_ref()).unwrap();
        Self { pair, id }
    }

    pub(crate) fn published(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "kid": self.id,
            "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..]),
        })
    }

    pub(crate) fn sign(&self, claims: &Value) -> String {
        let text = unsigned(&json!({ "alg": "ES256", "kid": self.id, "typ": "JWT" }), claims);
        let signature = self.pair.sign(&SystemRandom::new(), text.as_bytes()).unwrap();
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// Header and claims of a token.
pub(crate) fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()))
}
