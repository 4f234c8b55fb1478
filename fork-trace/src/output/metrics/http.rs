//! HTTP as far as a scrape needs it: one request, one answer, and the connection is closed. Pure.
//!
//! A library would bring the whole protocol, of which Prometheus and a check of health use this much.

use crate::output::metrics::text::Dialect;

/// The longest head of a request that is read.
pub(super) const MOST: usize = 8 << 10;

/// A format of exposition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Text(Dialect),
    Protobuf,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Metrics(Format),
    Health,
    /// It cannot be had.
    Refused(Status),
}

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) asked: Asked,
    /// Whether only the head of the answer is wanted.
    pub(super) head: bool,
}

/// How an answer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Ok,
    BadRequest,
    NotFound,
    MethodNotAllowed,
    Timeout,
    TooLarge,
    Unavailable,
}

impl Status {
    const fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::BadRequest => "400 Bad Request",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed => "405 Method Not Allowed",
            Self::Timeout => "408 Request Timeout",
            Self::TooLarge => "431 Request Header Fields Too Large",
            Self::Unavailable => "503 Service Unavailable",
        }
    }
}

impl Format {
    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::Text(Dialect::OpenMetrics) => {
                "application/openmetrics-text; version=1.0.0; charset=utf-8"
            }
            Self::Text(Dialect::Prometheus) => "text/plain; version=0.0.4; charset=utf-8",
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; \
                 encoding=delimited"
            }
        }
    }

    /// The one that is wanted most, of those that are named; `OpenMetrics` where none is.
    fn accepted(accept: &str) -> Self {
        let mut best = None;
        for range in accept.split(',') {
            let mut parts = range.split(';').map(|part| part.trim().to_ascii_lowercase());
            let name = parts.next().unwrap_or_default();
            let parts: Vec<_> = parts.collect();
            let has = |wanted: &str| parts.iter().any(|part| part == wanted);
            let format = match name.as_str() {
                "application/vnd.google.protobuf"
                    if has("proto=io.prometheus.client.metricfamily")
                        && has("encoding=delimited") =>
                {
                    Self::Protobuf
                }
                "application/openmetrics-text" => Self::Text(Dialect::OpenMetrics),
                "text/plain" => Self::Text(Dialect::Prometheus),
                _ => continue,
            };
            let weight = parts.iter().find_map(|part| part.strip_prefix("q="));
            let weight = weight.map_or(Some(1.0), |weight| weight.parse::<f64>().ok());
            let weight = weight.filter(|weight| (0.0..=1.0).contains(weight)).unwrap_or(0.0);
            // Of equals the first is meant.
            if weight > 0.0 && best.is_none_or(|(most, _)| weight > most) {
                best = Some((weight, format));
            }
        }
        best.map_or(Self::Text(Dialect::OpenMetrics), |(_, format)| format)
    }
}

/// What these bytes ask for; `None`: the head is not there as a whole.
pub(super) fn request(bytes: &[u8]) -> Option<Request> {
    let refused = |status| Some(Request { asked: Asked::Refused(status), head: false });
    let ends = |end: &[u8]| bytes.windows(end.len()).position(|part| part == end);
    // A client that is no library may leave out the carriage returns.
    let Some(end) = ends(b"\r\n\r\n").or_else(|| ends(b"\n\n")) else {
        return if bytes.len() >= MOST { refused(Status::TooLarge) } else { None };
    };
    let head = bytes.get(..end).unwrap_or_default();
    let Ok(head) = str::from_utf8(head) else { return refused(Status::BadRequest) };
    let mut lines = head.lines();
    let words: Vec<_> = lines.next().unwrap_or_default().split(' ').collect();
    let &[method, target, version] = words.as_slice() else { return refused(Status::BadRequest) };
    let is_method = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
    if !is_method || !matches!(version, "HTTP/1.0" | "HTTP/1.1") || !target.starts_with('/') {
        return refused(Status::BadRequest);
    }
    let mut accept = String::new();
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { return refused(Status::BadRequest) };
        if name.eq_ignore_ascii_case("accept") {
            accept.push_str(value);
            accept.push(',');
        }
    }
    let asked = match target.split('?').next().unwrap_or_default() {
        "/metrics" => Asked::Metrics(Format::accepted(&accept)),
        "/healthz" => Asked::Health,
        _ => Asked::Refused(Status::NotFound),
    };
    match method {
        "GET" | "HEAD" => Some(Request { asked, head: method == "HEAD" }),
        _ if asked == Asked::Refused(Status::NotFound) => refused(Status::NotFound),
        _ => refused(Status::MethodNotAllowed),
    }
}

/// An answer, as bytes.
pub(super) fn answer(status: Status, content_type: &str, body: &[u8], head: bool) -> Vec<u8> {
    let allow = match status {
        Status::MethodNotAllowed => "Allow: GET, HEAD\r\n",
        _ => "",
    };
    let mut bytes = format!(
        "HTTP/1.1 {}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n{allow}\
         Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n",
        status.line(),
        body.len()
    )
    .into_bytes();
    if !head {
        bytes.extend_from_slice(body);
    }
    bytes
}

/// An answer that says nothing but its status.
pub(super) fn bare(status: Status, head: bool) -> Vec<u8> {
    let text = format!("{}\n", status.line());
    answer(status, "text/plain; charset=utf-8", text.as_bytes(), head)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Format = Format::Text(Dialect::OpenMetrics);

    fn asked(text: &str) -> Option<Asked> {
        request(text.as_bytes()).map(|request| request.asked)
    }

    fn refused(status: Status) -> Option<Asked> {
        Some(Asked::Refused(status))
    }

    #[test]
    fn requests_are_read_or_refused() {
        for (text, wanted) in [
            ("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", Some(Asked::Metrics(OPEN))),
            ("GET /metrics?x=1 HTTP/1.0\n\n", Some(Asked::Metrics(OPEN))),
            ("HEAD /healthz HTTP/1.1\r\n\r\n", Some(Asked::Health)),
            ("GET / HTTP/1.1\r\n\r\n", refused(Status::NotFound)),
            ("GET /metrics/ HTTP/1.1\r\n\r\n", refused(Status::NotFound)),
            ("POST /metrics HTTP/1.1\r\n\r\nx", refused(Status::MethodNotAllowed)),
            ("POST /x HTTP/1.1\r\n\r\n", refused(Status::NotFound)),
            ("GET /metrics\r\n\r\n", refused(Status::BadRequest)),
            ("GET  /metrics HTTP/1.1\r\n\r\n", refused(Status::BadRequest)),
            ("GET http://x/metrics HTTP/1.1\r\n\r\n", refused(Status::BadRequest)),
            ("GET /metrics HTTP/2.0\r\n\r\n", refused(Status::BadRequest)),
            ("get /metrics HTTP/1.1\r\n\r\n", refused(Status::BadRequest)),
            ("GET /metrics HTTP/1.1\r\nno header\r\n\r\n", refused(Status::BadRequest)),
            ("\r\n\r\n", refused(Status::BadRequest)),
            ("GET /metrics HTTP/1.1\r\nHost: x\r\n", None),
            ("", None),
        ] {
            assert_eq!(asked(text), wanted, "{text:?}");
        }
        assert_eq!(
            request(b"GET /\xff HTTP/1.1\r\n\r\n").map(|request| request.asked),
            refused(Status::BadRequest)
        );
        let long = format!("GET /metrics HTTP/1.1\r\nx: {}", "y".repeat(MOST));
        assert_eq!(asked(&long), refused(Status::TooLarge));
        assert!(request(b"HEAD /metrics HTTP/1.1\r\n\r\n").unwrap().head);
    }

    #[test]
    fn the_format_is_the_one_that_is_wanted_most() {
        let old = Format::Text(Dialect::Prometheus);
        for (accept, wanted) in [
            ("", OPEN),
            ("*/*", OPEN),
            ("text/html,*/*;q=0.8", OPEN),
            ("text/plain", old),
            // What Prometheus 2.42 sends, without and with native histograms.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;\
                 q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                OPEN,
            ),
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
                 encoding=delimited,application/openmetrics-text;version=1.0.0;q=0.8,text/plain;q=0.5",
                Format::Protobuf,
            ),
            ("application/vnd.google.protobuf", OPEN),
            ("text/plain;q=0.2, application/openmetrics-text; q=0.1", old),
            ("text/plain;q=x", OPEN),
            ("text/plain;q=0", OPEN),
        ] {
            let text = format!("GET /metrics HTTP/1.1\r\nACCEPT: {accept}\r\n\r\n");
            assert_eq!(asked(&text), Some(Asked::Metrics(wanted)), "{accept}");
        }
    }

    #[test]
    fn answers_say_how_long_they_are() {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let whole = text(answer(Status::Ok, "text/plain", b"abc", false));
        assert!(whole.starts_with("HTTP/1.1 200 OK\r\n") && whole.ends_with("\r\n\r\nabc"));
        assert!(whole.contains("\r\nContent-Length: 3\r\n"));
        let head = text(answer(Status::Ok, "text/plain", b"abc", true));
        assert!(head.contains("Content-Length: 3") && head.ends_with("\r\n\r\n"));
        assert!(text(bare(Status::MethodNotAllowed, false)).contains("\r\nAllow: GET, HEAD\r\n"));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            request(&bytes);
        }

        #[test]
        fn any_header_is_taken(header in "[ -~\\r\\n]{0,200}") {
            request(format!("GET /metrics HTTP/1.1\r\nAccept:{header}\r\n\r\n").as_bytes());
        }
    }
}
