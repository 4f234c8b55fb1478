//! Requests to a Collector: plain HTTP/1.1, one for each connection, and never for long.

use std::{
    fmt,
    io::{self, Read as _, Write as _},
    net::{TcpStream, ToSocketAddrs as _},
    str::FromStr,
    time::Duration,
};

/// The port of OTLP over HTTP.
const PORT: &str = "4318";

/// How long a connection, a request and an answer may take, each.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest answer that is read.
const LONGEST: u64 = 16 << 10;

/// Where a Collector listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Host and port.
    authority: String,
    /// What stands before `/v1/metrics`.
    path: String,
}

/// What became of a request that was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Taken,
    /// It may be taken later.
    Later(u16),
    Refused(u16),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let example = "such as http://127.0.0.1:4318";
        let Some(rest) = text.strip_prefix("http://") else {
            let tls = "; for TLS put a Collector on this host before it";
            let tls = if text.starts_with("https://") { tls } else { "" };
            return Err(format!("give an address {example}{tls}"));
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"@?#\\".contains(&byte);
        if authority.is_empty() || !rest.bytes().all(is_plain) {
            return Err(format!("give a host, {example}"));
        }
        // A colon inside of brackets belongs to an address of version 6.
        let name = authority.rsplit(']').next().unwrap_or_default();
        let authority = match name.rsplit_once(':') {
            Some((_, port)) if port.parse::<u16>().is_ok_and(|port| port > 0) => {
                authority.to_owned()
            }
            Some(_) => return Err(format!("give a port from 1 to 65535, {example}")),
            None => format!("{authority}:{PORT}"),
        };
        Ok(Self { authority, path: path.trim_end_matches('/').to_owned() })
    }
}

impl Endpoint {
    /// Posts a message of protocol buffers to a path below this.
    ///
    /// # Errors
    /// Nobody answers, or not in HTTP.
    pub(super) fn post(&self, path: &str, body: &[u8]) -> io::Result<Answer> {
        let mut failed = io::Error::from(io::ErrorKind::NotFound);
        for address in self.authority.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, PATIENCE) {
                Ok(stream) => return self.ask(stream, path, body),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    fn ask(&self, mut stream: TcpStream, path: &str, body: &[u8]) -> io::Result<Answer> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let head = format!(
            "POST {}{path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: fork-trace/{}\r\n\
             Content-Type: application/x-protobuf\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.path,
            self.authority,
            env!("CARGO_PKG_VERSION"),
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body].concat())?;
        let mut answer = Vec::new();
        let read = stream.take(LONGEST).read_to_end(&mut answer);
        // Some servers do not close their end at once; what came before counts.
        match status(&answer) {
            Some(status) => Ok(status),
            None => Err(read.err().unwrap_or_else(|| io::Error::other("the answer is not HTTP"))),
        }
    }
}

/// What the status of an answer means.
fn status(answer: &[u8]) -> Option<Answer> {
    let line = answer.split(|byte| *byte == b'\r').next()?;
    let rest = std::str::from_utf8(line).ok()?.strip_prefix("HTTP/1.")?;
    let status = rest.split(' ').nth(1)?.parse().ok()?;
    Some(match status {
        200..=299 => Answer::Taken,
        // The statuses that the protocol lets a client try again after.
        429 | 502 | 503 | 504 => Answer::Later(status),
        _ => Answer::Refused(status),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_or_refused_with_the_cure() {
        for (text, told) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318"),
            ("http://collector", "http://collector:4318"),
            ("http://[::1]/", "http://[::1]:4318"),
            ("http://[::1]:99/otlp/", "http://[::1]:99/otlp"),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), told);
        }
        for (text, told) in [
            ("127.0.0.1:4318", "give an address such as http://"),
            ("https://a", "for TLS put a Collector on this host"),
            ("http://", "give a host"),
            ("http:///x", "give a host"),
            ("http://a b", "give a host"),
            ("http://a\r\nX: y", "give a host"),
            ("http://me@a", "give a host"),
            ("http://a:0", "give a port"),
            ("http://a:70000", "give a port"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
    }

    #[test]
    fn statuses_mean_what_the_protocol_says() {
        assert_eq!(status(b"HTTP/1.1 200 OK\r\n\r\n"), Some(Answer::Taken));
        assert_eq!(status(b"HTTP/1.0 503 x"), Some(Answer::Later(503)));
        assert_eq!(status(b"HTTP/1.1 400 Bad Request\r\n"), Some(Answer::Refused(400)));
        for other in [&b""[..], b"SSH-2.0", b"HTTP/1.1", b"HTTP/1.1 x y", b"\xff\xff"] {
            assert_eq!(status(other), None);
        }
    }
}
