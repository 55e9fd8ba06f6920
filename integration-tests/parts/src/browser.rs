//! What a person does at the provider, without a browser: follows redirects, keeps cookies, submits forms.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use horcrux_transport::https::Https;
use horcrux_transport::tls::foreign_client;
use http::{HeaderMap, Request, StatusCode, header};
use url::{Url, form_urlencoded};

/// A sign-in with consent takes a dozen.
const STEPS: usize = 30;

/// Opens `url`, signs in as `user` and agrees to everything. Gives the address that the provider sends the browser to
/// outside of itself, or that of a page without a form.
pub async fn agree(url: &str, authorities: &Path, user: &str) -> anyhow::Result<Url> {
    let config = foreign_client(Some(authorities))?;
    let https = Https::new(&config, Duration::from_secs(30), 1 << 20);
    let mut at = Url::parse(url)?;
    let home = at.origin();
    let mut cookies = Cookies::default();
    let mut form: Option<String> = None;
    for _ in 0..STEPS {
        let request = Request::builder().uri(at.as_str()).header(header::COOKIE, cookies.for_path(at.path()));
        let request = match form.take() {
            Some(form) => request
                .method("POST")
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(form.into_bytes())?,
            None => request.body(Vec::new())?,
        };
        let answer = https.call(request).await?;
        cookies.take(answer.headers())?;
        if answer.status().is_redirection() {
            let location = answer.headers().get(header::LOCATION).context("a redirect says where to")?;
            at = at.join(location.to_str()?)?;
            if at.origin() != home {
                return Ok(at);
            }
            continue;
        }
        let page = String::from_utf8_lossy(answer.body()).into_owned();
        if answer.status() != StatusCode::OK {
            bail!("{at}: {}: {page}", answer.status());
        }
        match first_form(&page, user) {
            Some((action, filled)) => {
                at = at.join(&action)?;
                form = Some(filled);
            }
            None => return Ok(at),
        }
    }
    bail!("still at {at} after {STEPS} steps")
}

/// By name and path.
#[derive(Default)]
struct Cookies(BTreeMap<(String, String), String>);

impl Cookies {
    fn take(&mut self, headers: &HeaderMap) -> anyhow::Result<()> {
        for cookie in headers.get_all(header::SET_COOKIE) {
            let mut parts = cookie.to_str()?.split("; ");
            let (name, value) = parts.next().and_then(|pair| pair.split_once('=')).context("a cookie")?;
            let path = parts.find_map(|part| part.strip_prefix("path=")).unwrap_or("/");
            self.0.insert((name.to_owned(), path.to_owned()), value.to_owned());
        }
        Ok(())
    }

    fn for_path(&self, at: &str) -> String {
        let here =
            self.0.iter().filter(|((_, path), value)| at.starts_with(path.as_str()) && !value.is_empty());
        here.map(|((name, _), value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }
}

/// Where the page's first form goes, and what it sends with the name and a password filled in.
fn first_form(page: &str, user: &str) -> Option<(String, String)> {
    let form = page.split_once("<form")?.1;
    let form = form.split_once("</form>").map_or(form, |(form, _)| form);
    let action = attribute(form.split_once('>')?.0, "action")?;
    let mut filled = form_urlencoded::Serializer::new(String::new());
    for input in form.split("<input").skip(1) {
        let input = input.split_once('>').map_or(input, |(input, _)| input);
        let Some(name) = attribute(input, "name") else { continue };
        let value = match name.as_str() {
            "login" => user.to_owned(),
            "password" => "any".to_owned(),
            _ => attribute(input, "value").unwrap_or_default(),
        };
        filled.append_pair(&name, &value);
    }
    Some((action, filled.finish()))
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let value = tag.split_once(&format!(" {name}=\""))?.1;
    Some(value.split_once('"')?.0.replace("&amp;", "&"))
}
