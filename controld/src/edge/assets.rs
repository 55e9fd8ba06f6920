//! The web page, which is built into the program, and the headers that every answer carries.

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use horcrux_proto::console::GUEST_PATH;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tonic::Status;

use super::gate;

#[derive(rust_embed::RustEmbed)]
#[folder = "web/dist"]
struct Page;

/// What the page may do: nothing but its own files and its own origin.
const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types svelte-trusted-html";

/// The console's document. Its terminal sets styles of its own, and its buttons read the clipboard and fill the screen.
const CONSOLE: &str = "console.html";
/// That of recordings: it has the same terminal, and reads no clipboard.
const RECORDINGS: &str = "recordings.html";
/// A guest's document: a console too.
const GUEST: &str = "guest.html";
const TERMINAL_CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
    font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types svelte-trusted-html";

const PERMISSIONS: &str = "clipboard-read=(), camera=(), microphone=(), geolocation=()";
const CONSOLE_PERMISSIONS: &str = "clipboard-read=(self), clipboard-write=(self), fullscreen=(self), camera=(), microphone=(), geolocation=()";

const NOT_BUILT: &str = "<!doctype html><meta charset=utf-8><title>Horcrux</title><h1>Horcrux</h1>\
    <p>This controller was built without its web page. Build controld/web first, then the controller.";

/// A file of the page. A path that a browser navigates to is a document of its own or else the page itself; each reads the
/// path.
pub(super) async fn serve(request: Request) -> Response {
    let is_rpc = request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    if is_rpc {
        gate::drain(request.into_body()).await;
        return Status::unimplemented("no such method").into_http();
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let path = request.uri().path().trim_start_matches('/');
    let accepts_html = request
        .headers()
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html"));
    if let Some(file) = Page::get(path) {
        return answer(path, &file, request.headers());
    }
    if !(path.is_empty() || accepts_html) {
        return StatusCode::NOT_FOUND.into_response();
    }
    let document = match path {
        path if is_console(path) => CONSOLE,
        path if is_recordings(path) => RECORDINGS,
        path if path == GUEST_PATH.trim_start_matches('/') => GUEST,
        _ => "index.html",
    };
    match Page::get(document) {
        Some(file) => answer(document, &file, request.headers()),
        None => (StatusCode::SERVICE_UNAVAILABLE, [(header::CONTENT_TYPE, "text/html")], NOT_BUILT)
            .into_response(),
    }
}

/// `vms/{uuid}/console`.
fn is_console(path: &str) -> bool {
    let mut parts = path.trim_end_matches('/').split('/');
    parts.next() == Some("vms") && parts.nth(1) == Some("console") && parts.next().is_none()
}

/// `recordings` and `recordings/{id}`.
fn is_recordings(path: &str) -> bool {
    let mut parts = path.trim_end_matches('/').split('/');
    parts.next() == Some("recordings") && parts.nth(1).is_none()
}

fn answer(path: &str, file: &rust_embed::EmbeddedFile, asked: &HeaderMap) -> Response {
    let hash: String = file.metadata.sha256_hash().iter().map(|byte| format!("{byte:02x}")).collect();
    let etag = format!("\"{hash}\"");
    // Files under assets/ carry a hash of their content in their name.
    let caching =
        if path.starts_with("assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
    let fresh = asked.get(header::IF_NONE_MATCH).is_some_and(|value| value.as_bytes() == etag.as_bytes());
    let head = [
        (header::CONTENT_TYPE, file.metadata.mimetype().to_owned()),
        (header::CACHE_CONTROL, caching.to_owned()),
        (header::ETAG, etag),
    ];
    let mut response = if fresh {
        (StatusCode::NOT_MODIFIED, head).into_response()
    } else {
        (head, Body::from(file.data.to_vec())).into_response()
    };
    match path {
        CONSOLE | GUEST => drop(response.extensions_mut().insert(Terminal::Console)),
        RECORDINGS => drop(response.extensions_mut().insert(Terminal::Recordings)),
        _ => {}
    }
    response
}

/// Of an answer that is a document with a terminal in it: only those have another policy.
#[derive(Clone, Copy)]
enum Terminal {
    Console,
    Recordings,
}

/// Puts the security headers on an answer.
pub(super) async fn headers(mut response: Response) -> Response {
    let (csp, permissions) = match response.extensions().get::<Terminal>() {
        Some(Terminal::Console) => (TERMINAL_CSP, CONSOLE_PERMISSIONS),
        Some(Terminal::Recordings) => (TERMINAL_CSP, PERMISSIONS),
        None => (CSP, PERMISSIONS),
    };
    let fixed = [
        ("content-security-policy", csp),
        ("strict-transport-security", "max-age=31536000"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("permissions-policy", permissions),
    ];
    for (name, value) in fixed {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header<'a>(response: &'a Response, name: &str) -> &'a str {
        response.headers()[name].to_str().unwrap()
    }

    async fn served(path: &str) -> Response {
        let request =
            Request::builder().uri(path).header(header::ACCEPT, "text/html").body(Body::empty()).unwrap();
        headers(serve(request).await).await
    }

    #[test]
    fn only_a_vm_has_a_console() {
        assert!(is_console("vms/0a1b2c3d-0000-4000-8000-00000000000f/console"));
        assert!(is_console("vms/web1/console/"));
        for path in ["", "vms", "vms/web1", "vms/web1/console/x", "nodes/web1/console", "x/vms/web1/console"]
        {
            assert!(!is_console(path), "{path}");
        }
    }

    #[test]
    fn recordings_are_a_list_and_each_of_it() {
        assert!(
            is_recordings("recordings")
                && is_recordings("recordings/4f0c")
                && is_recordings("recordings/4f0c/")
        );
        for path in ["", "x/recordings", "recordings/4f0c/x", "recordings.htm"] {
            assert!(!is_recordings(path), "{path}");
        }
    }

    #[tokio::test]
    async fn recordings_may_set_styles_and_not_read_the_clipboard() {
        for path in ["/recordings", "/recordings/4f0c", "/recordings.html"] {
            let page = served(path).await;
            assert!(
                header(&page, "content-security-policy").contains("style-src 'self' 'unsafe-inline'"),
                "{path}"
            );
            assert!(header(&page, "permissions-policy").contains("clipboard-read=()"), "{path}");
        }
    }

    #[tokio::test]
    async fn the_console_may_set_styles_and_read_the_clipboard_and_the_page_may_not() {
        for path in ["/vms/web1/console", "/console.html", "/guest", "/guest.html"] {
            let console = served(path).await;
            assert!(
                header(&console, "content-security-policy").contains("style-src 'self' 'unsafe-inline'"),
                "{path}"
            );
            assert!(header(&console, "permissions-policy").contains("clipboard-read=(self)"), "{path}");
        }
        for path in ["/", "/index.html", "/vms/web1", "/icon.svg", "/console/v1", "/guest/x", "/guests"] {
            let page = served(path).await;
            assert!(!header(&page, "content-security-policy").contains("unsafe"), "{path}");
            assert!(header(&page, "permissions-policy").contains("clipboard-read=()"), "{path}");
        }
        for path in ["/", "/vms/web1/console", "/recordings", "/guest"] {
            let policy = served(path).await;
            let policy = header(&policy, "content-security-policy");
            for rule in [
                "default-src 'none'",
                "script-src 'self';",
                "frame-ancestors 'none'",
                "require-trusted-types-for 'script'",
            ] {
                assert!(policy.contains(rule), "{path}: {rule}");
            }
        }
    }
}
