//! One request, answered.

use std::convert::Infallible;
use std::io::Write as _;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use horcrux_transport::secret::Secret;
use http::header::{
    ALLOW, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderValue, WWW_AUTHENTICATE,
};
use http::uri::Authority;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;
use subtle::ConstantTimeEq as _;
use tokio::sync::watch;

use crate::local::Local;

use super::negotiate;
use super::render::Renderer;
use super::text::Format;

/// For all of one exchange: Prometheus gives a scrape 10 s as it comes.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

/// Answers scrapes.
#[derive(Debug)]
pub(super) struct Answering {
    local: Arc<Local>,
    renderer: Mutex<Renderer>,
    asked_by: AskedBy,
}

/// Who may ask.
#[derive(Debug)]
pub(super) enum AskedBy {
    /// Whoever can connect.
    Anyone,
    /// Whoever connects to this host by an address or a name of its own. A page that a browser here shows can have its own
    /// name stand for this address: it is no program of this host.
    ThisHost,
    /// Whoever shows this.
    Token(watch::Receiver<Secret>),
}

impl Answering {
    pub(super) fn new(local: Arc<Local>, renderer: Renderer, asked_by: AskedBy) -> Self {
        Self { local, renderer: Mutex::new(renderer), asked_by }
    }

    pub(super) async fn answer<B>(
        self: Arc<Self>,
        request: Request<B>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let late = || status(StatusCode::SERVICE_UNAVAILABLE);
        Ok(tokio::time::timeout(DEADLINE, self.respond(request)).await.unwrap_or_else(|_| late()))
    }

    async fn respond<B>(self: Arc<Self>, request: Request<B>) -> Response<Full<Bytes>> {
        match &self.asked_by {
            AskedBy::Anyone => {}
            AskedBy::ThisHost if names_this_host(request.headers()) => {}
            AskedBy::ThisHost => return status(StatusCode::MISDIRECTED_REQUEST),
            AskedBy::Token(token) if shows(request.headers(), &token.borrow()) => {}
            AskedBy::Token(_) => {
                let mut refused = status(StatusCode::UNAUTHORIZED);
                refused.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                return refused;
            }
        }
        if request.uri().path() != "/metrics" {
            return status(StatusCode::NOT_FOUND);
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refused = status(StatusCode::METHOD_NOT_ALLOWED);
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        let format = negotiate::format(request.headers());
        let zipped = negotiate::takes_gzip(request.headers());
        // With a thousand containers it takes long enough to hold up what else the agent does.
        let written = tokio::task::spawn_blocking(move || self.write(format, zipped)).await;
        let Ok(body) = written else { return status(StatusCode::INTERNAL_SERVER_ERROR) };
        let mut response = Response::new(Full::new(body));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
        if zipped {
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }

    /// One at a time: there is one buffer.
    fn write(&self, format: Format, zipped: bool) -> Bytes {
        let mut renderer = self.renderer.lock().unwrap_or_else(PoisonError::into_inner);
        let text = renderer.render(&self.local, format);
        if !zipped {
            return Bytes::copy_from_slice(text.as_bytes());
        }
        // Ten lines of one family differ in a few digits: they come to a tenth.
        let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 8), Compression::fast());
        // Writing to memory can't fail.
        encoder.write_all(text.as_bytes()).unwrap_or_default();
        encoder.finish().unwrap_or_default().into()
    }
}

fn shows(headers: &HeaderMap, token: &Secret) -> bool {
    let shown = headers.get(AUTHORIZATION).and_then(|value| {
        let (scheme, shown) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| shown.trim())
    });
    shown.is_some_and(|shown| token.expose().as_bytes().ct_eq(shown.as_bytes()).into())
}

/// An address, or a name that no other host has. Without one it is no browser.
fn names_this_host(headers: &HeaderMap) -> bool {
    let Some(asked) = headers.get(HOST) else { return true };
    let host = asked.to_str().ok().and_then(|host| host.parse::<Authority>().ok());
    host.is_some_and(|authority| {
        let host = authority.host();
        let address = host.trim_start_matches('[').trim_end_matches(']');
        address.parse::<IpAddr>().is_ok() || host.eq_ignore_ascii_case("localhost")
    })
}

fn status(code: StatusCode) -> Response<Full<Bytes>> {
    let text = format!("{}\n", code.canonical_reason().unwrap_or("error"));
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::path::Path;

    use http_body_util::BodyExt as _;

    use super::*;

    async fn ask(token: Option<&str>, request: http::request::Builder) -> (StatusCode, HeaderMap, Vec<u8>) {
        let (_keep, asked_by) = token.map_or((None, AskedBy::ThisHost), |token| {
            let (keep, token) = watch::channel(Secret::from(token.to_owned()));
            (Some(keep), AskedBy::Token(token))
        });
        let local = Arc::new(Local::new(Vec::new()));
        let answering = Arc::new(Answering::new(local, Renderer::new(Path::new("/nonexistent")), asked_by));
        let response = answering.answer(request.body(()).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        (head.status, head.headers, body.collect().await.unwrap().to_bytes().to_vec())
    }

    fn get(path: &str) -> http::request::Builder {
        Request::get(path)
    }

    #[tokio::test]
    async fn metrics_are_at_one_path_for_reading() {
        assert_eq!(ask(None, get("/metrics")).await.0, StatusCode::OK);
        assert_eq!(ask(None, get("/metrics?x=1")).await.0, StatusCode::OK);
        assert_eq!(ask(None, get("/")).await.0, StatusCode::NOT_FOUND);
        let (code, headers, _) = ask(None, Request::post("/metrics")).await;
        assert_eq!((code, headers[ALLOW].to_str().unwrap()), (StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD"));
    }

    #[tokio::test]
    async fn a_page_of_another_name_reads_nothing_of_a_port_of_this_host() {
        for ours in ["127.0.0.1:9177", "localhost:9177", "LOCALHOST", "[::1]:9177"] {
            assert_eq!(ask(None, get("/metrics").header(HOST, ours)).await.0, StatusCode::OK, "{ours}");
        }
        for other in ["evil.example:9177", "127.0.0.1.evil.example", "localhost.evil.example", "", "a b"] {
            let (code, _, body) = ask(None, get("/metrics").header(HOST, other)).await;
            assert_eq!(
                (code, body),
                (StatusCode::MISDIRECTED_REQUEST, b"Misdirected Request\n".to_vec()),
                "{other}"
            );
        }
    }

    #[tokio::test]
    async fn without_the_token_nothing_is_told() {
        let token = Some("a-token-of-some-length");
        let shown = |text: &str| get("/metrics").header(AUTHORIZATION, text);
        for wrong in
            ["Bearer a-token-of-some-lengtX", "Bearer ", "Bearer", "Basic a-token-of-some-length", ""]
        {
            let (code, headers, body) = ask(token, shown(wrong)).await;
            assert_eq!(code, StatusCode::UNAUTHORIZED, "{wrong}");
            assert_eq!(
                (headers[WWW_AUTHENTICATE].to_str().unwrap(), body.as_slice()),
                ("Bearer", &b"Unauthorized\n"[..])
            );
        }
        assert_eq!(ask(token, get("/")).await.0, StatusCode::UNAUTHORIZED, "not even what there is");
        assert_eq!(ask(token, shown("bearer a-token-of-some-length")).await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn the_form_and_the_encoding_are_what_was_asked_for() {
        let (_, headers, body) = ask(None, get("/metrics")).await;
        assert_eq!(headers[CONTENT_TYPE], "text/plain; version=0.0.4; charset=utf-8");
        assert!(!headers.contains_key(CONTENT_ENCODING) && body.starts_with(b"# HELP "));
        let asked = get("/metrics")
            .header("accept", "application/openmetrics-text; version=1.0.0")
            .header("accept-encoding", "gzip");
        let (_, headers, body) = ask(None, asked).await;
        assert_eq!(headers[CONTENT_TYPE], "application/openmetrics-text; version=1.0.0; charset=utf-8");
        let mut text = String::new();
        flate2::read::GzDecoder::new(body.as_slice()).read_to_string(&mut text).unwrap();
        assert!(text.starts_with("# HELP ") && text.ends_with("# EOF\n"), "{text}");
    }
}
