//! Answers scrapes: a thread with an event loop of its own, so that neither a scrape nor a slow client can hold up
//! the trace.

use std::{
    cell::RefCell,
    io,
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::PoisonError,
    thread,
    time::{Duration, Instant},
};

use tokio::{
    net::{self, TcpStream},
    task::{JoinSet, LocalSet},
    time::{sleep, timeout},
};

use crate::{
    error::UserError,
    output::{
        capabilities,
        metrics::{
            Readings, Shared,
            http::{self, Asked, Format, MOST, Request, Status},
            proto, text,
        },
    },
};

/// Connections at once; others wait until one ends.
const CONNECTIONS: usize = 16;

/// How long a request may take to arrive, and an answer to be taken.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long to wait where the system has no room for another connection.
const PAUSE: Duration = Duration::from_millis(100);

/// What is answered with.
pub struct Answers {
    /// The numbers.
    pub metrics: Shared,
    /// Reads what is not counted.
    pub readings: Box<dyn FnMut() -> Readings + Send>,
    /// Whether the trace is alive.
    pub is_alive: Box<dyn Fn() -> bool + Send>,
}

/// The place where scrapes are answered, once [`Server::start`] was called; until then they wait.
#[derive(Debug)]
pub struct Server(TcpListener);

impl Server {
    /// Takes the port.
    ///
    /// # Errors
    /// [`UserError::Listen`].
    pub fn bind(address: SocketAddr) -> Result<Self, UserError> {
        let failed = |error: &io::Error| {
            // What the system said, without its number.
            let text = error.to_string();
            let cause = text.split(" (os error").next().unwrap_or(&text).to_owned();
            UserError::Listen { address: address.to_string(), cause }
        };
        let listener = TcpListener::bind(address).map_err(|error| failed(&error))?;
        listener.set_nonblocking(true).map_err(|error| failed(&error))?;
        Ok(Self(listener))
    }

    /// The address that it has, with the port that the system chose for 0.
    ///
    /// # Errors
    /// The system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Answers from now on, until the process ends.
    ///
    /// # Errors
    /// There can be no thread.
    pub fn start(self, answers: Answers) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("http".to_owned()).spawn(move || {
            // This thread talks to strangers and needs no capabilities.
            capabilities::keep(&[], "http");
            let local = LocalSet::new();
            local.block_on(&runtime, async {
                if let Err(error) = serve(self.0, answers).await {
                    log::error!("answer scrapes: {error}");
                }
            });
        })?;
        Ok(())
    }
}

async fn serve(listener: TcpListener, answers: Answers) -> io::Result<()> {
    let listener = net::TcpListener::from_std(listener)?;
    let answers = Rc::new(RefCell::new(answers));
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if open.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    let answers = Rc::clone(&answers);
                    open.spawn_local(async move { attend(&stream, &answers).await });
                }
                // Too many open files, or a client that is gone again.
                Err(_) => sleep(PAUSE).await,
            },
            Some(_) = open.join_next(), if !open.is_empty() => {}
        }
    }
}

/// One connection, from the request to its end.
async fn attend(stream: &TcpStream, answers: &RefCell<Answers>) {
    let answer = match timeout(PATIENCE, read(stream)).await {
        Ok(Ok(request)) => answers.borrow_mut().to(request),
        // It is gone.
        Ok(Err(_)) => return,
        Err(_) => http::bare(Status::Timeout, false),
    };
    // A client that does not take its answer has none.
    timeout(PATIENCE, write(stream, &answer)).await.map(drop).ok();
    // The kernel answers what was not read by a reset, and a client may then lose the answer.
    let mut rest = [0; MOST];
    while stream.try_read(&mut rest).is_ok_and(|read| read == rest.len()) {}
}

async fn read(stream: &TcpStream) -> io::Result<Request> {
    let (mut bytes, mut part) = (Vec::new(), [0; 1024]);
    loop {
        stream.readable().await?;
        match stream.try_read(&mut part) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                bytes.extend_from_slice(part.get(..read).unwrap_or_default());
                if let Some(request) = http::request(&bytes) {
                    return Ok(request);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

async fn write(stream: &TcpStream, mut rest: &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        stream.writable().await?;
        match stream.try_write(rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Answers {
    fn to(&mut self, Request { asked, head }: Request) -> Vec<u8> {
        match asked {
            Asked::Metrics(format) => {
                http::answer(Status::Ok, format.content_type(), &self.exposition(format), head)
            }
            Asked::Health if (self.is_alive)() => http::bare(Status::Ok, head),
            Asked::Health => http::bare(Status::Unavailable, head),
            Asked::Refused(status) => http::bare(status, head),
        }
    }

    fn exposition(&mut self, format: Format) -> Vec<u8> {
        let readings = (self.readings)();
        // The numbers are copied at once, and formatted when they are free again.
        let families = {
            let mut metrics = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
            metrics.families(&readings, Instant::now())
        };
        match format {
            Format::Text(dialect) => text::text(&families, dialect).into_bytes(),
            Format::Protobuf => proto::bytes(&families),
        }
    }
}
