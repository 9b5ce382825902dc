//! Ranks over TCP: how they find each other, and the ring.
//!
//! The first rank listens where the launcher says (`MASTER_ADDR`, `MASTER_PORT`). Every other one comes there, says
//! where it listens itself, and is told of the next rank, the last one of all. That connection stays for the
//! [`watch`](super::watch); others carry the data, from each rank to the next and from the last to all. Nothing is
//! encrypted and nobody is asked who he is: as with MPI, the network between the machines is the cluster's own.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, bail, ensure};

use super::launch::Place;
use super::watch::Watch;
use super::{Late, Ranks, Transport};

/// How long ranks wait for each other at the start.
const MEETING: Duration = Duration::from_secs(120);

/// The pause before a rank that does not listen yet is tried again.
const RETRY: Duration = Duration::from_millis(50);

/// What fits into the buffers of a connection, so that it is sent without waiting for a reader.
const BUFFERED: usize = 1 << 14;

/// What a connection begins with.
const MAGIC: &[u8; 8] = b"reckon-2";

/// The ranks that one sends to, and those that it receives from.
#[derive(Debug)]
struct Tcp {
    to: Streams,
    from: Streams,
    place: Place,
    patience: Duration,
    watch: Watch,
}

/// Connections by the rank behind them.
type Streams = BTreeMap<usize, TcpStream>;

/// Which ranks one sends to: the next one, the last one all.
fn targets(place: Place) -> Vec<usize> {
    let Place { rank, size, .. } = place;
    if rank + 1 == size { (0..rank).collect() } else { vec![rank + 1] }
}

/// Which ranks send to one.
fn sources(place: Place) -> Vec<usize> {
    (0..place.size)
        .filter(|&rank| rank != place.rank && targets(Place { rank, ..place }).contains(&place.rank))
        .collect()
}

/// Joins the ring whose first rank is met at `meeting`. A rank that is waited for longer than `patience` ends the run.
pub fn join(place: Place, meeting: &(String, u16), patience: Duration) -> Result<Ranks> {
    let (host, port) = (meeting.0.as_str(), meeting.1);
    let transport = match place.rank {
        0 => {
            let listener = listen(host, port).with_context(|| {
                format!(
                    "rank 0 cannot listen at {host}:{port}: set MASTER_ADDR to this machine's name and MASTER_PORT to a \
                     free port"
                )
            })?;
            Tcp::first(place, &listener, patience)?
        }
        _ => Tcp::other(place, (host, port), patience)?,
    };
    Ok(Ranks::new(place, Box::new(transport)))
}

/// Listens at the address of a name that a cluster may not know yet.
fn listen(host: &str, port: u16) -> std::io::Result<TcpListener> {
    let deadline = Instant::now() + MEETING;
    loop {
        match (host, port).to_socket_addrs() {
            Err(_) if Instant::now() < deadline => std::thread::sleep(RETRY),
            found => return TcpListener::bind(&found?.collect::<Vec<_>>()[..]),
        }
    }
}

/// A ring whose ranks are threads of this process: for tests of it, and of this machine's network.
pub fn ring_of_threads(size: usize) -> Result<Vec<Ranks>> {
    if size == 1 {
        return Ok(vec![Ranks::alone()]);
    }
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("cannot listen on this machine")?;
    let address = listener.local_addr()?;
    let join = |rank| {
        let place = Place { rank, size, local_size: size, local_rank: rank };
        let transport = match rank {
            0 => Tcp::first(place, &listener, MEETING)?,
            _ => Tcp::other(place, (&address.ip().to_string(), address.port()), MEETING)?,
        };
        Ok(Ranks::new(place, Box::new(transport)))
    };
    std::thread::scope(|scope| {
        let join = &join;
        let threads: Vec<_> = (0..size).map(|rank| scope.spawn(move || join(rank))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

impl Tcp {
    /// The rank that the others come to.
    fn first(place: Place, listener: &TcpListener, patience: Duration) -> Result<Self> {
        let deadline = Instant::now() + MEETING;
        let mut come: Vec<Option<(TcpStream, SocketAddr)>> = (0..place.size).map(|_| None).collect();
        while come[1..].iter().any(Option::is_none) {
            let missing = || (1..place.size).filter(|&rank| come[rank].is_none()).map(|rank| rank.to_string());
            let missing = || format!("rank {} did not come", missing().collect::<Vec<_>>().join(", "));
            let (stream, hello) = accept(listener, Kind::Control, deadline).with_context(missing)?;
            hello.check(place)?;
            ensure!(come[hello.rank].is_none(), "two processes say that they are rank {}", hello.rank);
            let address = SocketAddr::new(stream.peer_addr()?.ip(), hello.port);
            come[hello.rank] = Some((stream, address));
        }
        let come: Vec<(TcpStream, SocketAddr)> = come.into_iter().flatten().collect();
        for (index, (mut stream, _)) in come.iter().map(|(stream, address)| (stream, address)).enumerate() {
            for target in targets(Place { rank: index + 1, ..place }) {
                // They have found this one already.
                let address = target.checked_sub(1).map_or(String::new(), |index| come[index].1.to_string());
                stream.write_all(&[address.len() as u8]).and_then(|()| stream.write_all(address.as_bytes()))?;
            }
        }
        let next = connect(&come[0].1, deadline, place)?;
        let from = accept_all(listener, deadline, place)?;
        let links = come.into_iter().enumerate().map(|(index, (stream, _))| (index + 1, stream)).collect();
        Self::new((Streams::from([(1, next)]), from), place, patience, links)
    }

    /// Any other rank.
    fn other(place: Place, meeting: (&str, u16), patience: Duration) -> Result<Self> {
        let deadline = Instant::now() + MEETING;
        let met = || format!("rank {} cannot reach rank 0 at {}:{}", place.rank, meeting.0, meeting.1);
        // Its own address is that by which it reaches the first.
        let stream = reach(&meeting, deadline).with_context(met)?;
        let listener = TcpListener::bind((stream.local_addr()?.ip(), 0)).context("cannot listen")?;
        let mut control = greet(stream, place, Kind::Control, listener.local_addr()?.port())?;
        control.set_read_timeout(Some(MEETING))?;
        let mut to = Streams::new();
        for target in targets(place) {
            let mut length = [0];
            control.read_exact(&mut length).with_context(|| format!("{}: it did not answer", met()))?;
            let mut address = vec![0; usize::from(length[0])];
            control.read_exact(&mut address)?;
            let stream = match String::from_utf8(address)? {
                first if first.is_empty() => connect(&meeting, deadline, place)?,
                address => connect(&address.as_str(), deadline, place)?,
            };
            to.insert(target, stream);
        }
        let from = accept_all(&listener, deadline, place)?;
        Self::new((to, from), place, patience, vec![(0, control)])
    }

    fn new(
        (to, from): (Streams, Streams),
        place: Place,
        patience: Duration,
        links: Vec<(usize, TcpStream)>,
    ) -> Result<Self> {
        from.values().try_for_each(|stream| stream.set_read_timeout(Some(patience)))?;
        to.values().try_for_each(|stream| stream.set_write_timeout(Some(patience)))?;
        let watch = Watch::begin(place.rank, links)?;
        Ok(Self { to, from, place, patience, watch })
    }

    fn send(&self, sends: &[(usize, &[u8])]) -> Result<(), (usize, std::io::Error)> {
        for (rank, bytes) in sends.iter().filter(|(_, bytes)| !bytes.is_empty()) {
            (&self.to[rank]).write_all(bytes).map_err(|error| (*rank, error))?;
        }
        Ok(())
    }

    fn receive(&self, receives: &mut [(usize, &mut [u8])]) -> Result<(), (usize, std::io::Error)> {
        for (rank, into) in receives.iter_mut().filter(|(_, into)| !into.is_empty()) {
            (&self.from[rank]).read_exact(into).map_err(|error| (*rank, error))?;
        }
        Ok(())
    }

    /// What became of the ring when a connection failed.
    fn fault(&self, (neighbour, error): (usize, std::io::Error)) -> Error {
        if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) {
            let waited = self.patience.as_secs();
            return Error::new(Late(format!(
                "rank {} has waited {waited} s for rank {neighbour}, which hangs or waits for one that does: see what it \
                 does, or raise --rank-timeout; go on with --resume",
                self.place.rank
            )));
        }
        // Who watches knows why, and ends this process.
        self.watch.await_end(Duration::from_secs(30));
        Error::new(error).context(format!("rank {} has lost rank {neighbour}", self.place.rank))
    }
}

impl Transport for Tcp {
    fn exchange(&self, sends: &[(usize, &[u8])], receives: &mut [(usize, &mut [u8])]) -> Result<()> {
        let (bytes, nothing): (usize, bool) =
            (sends.iter().map(|(_, bytes)| bytes.len()).sum(), receives.iter().all(|(_, into)| into.is_empty()));
        let (sent, received) = if bytes <= BUFFERED || nothing {
            (self.send(sends), self.receive(receives))
        } else {
            std::thread::scope(|scope| {
                let sending = scope.spawn(|| self.send(sends));
                let received = self.receive(receives);
                (sending.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), received)
            })
        };
        sent.and(received).map_err(|fault| self.fault(fault))
    }

    fn fail(&self, message: &str) {
        self.watch.fail(message);
    }

    fn await_end(&self) {
        self.watch.await_end(self.patience);
    }

    fn end(&self) -> Result<()> {
        self.watch.end();
        Ok(())
    }
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Control,
    Data,
}

/// How a rank presents itself.
struct Hello {
    rank: usize,
    size: usize,
    port: u16,
}

impl Hello {
    fn check(&self, place: Place) -> Result<()> {
        let Self { rank, size, .. } = self;
        ensure!(
            *size == place.size && *rank < place.size,
            "a process says that it is rank {rank} of {size}, and there are {}: start all by one launcher",
            place.size
        );
        Ok(())
    }
}

/// A connection to an address that may not listen yet.
fn reach(address: &impl ToSocketAddrs, deadline: Instant) -> Result<TcpStream> {
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => return Ok(stream),
            Err(error) if Instant::now() >= deadline => return Err(error.into()),
            Err(_) => std::thread::sleep(RETRY),
        }
    }
}

fn greet(mut stream: TcpStream, place: Place, kind: Kind, port: u16) -> Result<TcpStream> {
    stream.set_nodelay(true)?;
    let mut hello = MAGIC.to_vec();
    hello.push(kind as u8);
    hello.extend((place.rank as u32).to_le_bytes());
    hello.extend((place.size as u32).to_le_bytes());
    hello.extend(port.to_le_bytes());
    stream.write_all(&hello)?;
    Ok(stream)
}

fn connect(address: &impl ToSocketAddrs, deadline: Instant, place: Place) -> Result<TcpStream> {
    let stream =
        reach(address, deadline).with_context(|| format!("rank {} cannot reach one that it sends to", place.rank))?;
    greet(stream, place, Kind::Data, 0)
}

/// The connections of all ranks that send to this one, in whatever order they come.
fn accept_all(listener: &TcpListener, deadline: Instant, place: Place) -> Result<Streams> {
    let (wanted, mut come) = (sources(place), Streams::new());
    while let Some(missing) = wanted.iter().find(|&rank| !come.contains_key(rank)) {
        let (stream, hello) =
            accept(listener, Kind::Data, deadline).with_context(|| format!("rank {missing} did not come"))?;
        hello.check(place)?;
        if wanted.contains(&hello.rank) {
            come.insert(hello.rank, stream);
        }
    }
    Ok(come)
}

/// The next connection of this kind; what presents itself otherwise is left alone.
fn accept(listener: &TcpListener, kind: Kind, deadline: Instant) -> Result<(TcpStream, Hello)> {
    listener.set_nonblocking(true)?;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                if let Some(hello) = read_hello(&stream, kind)? {
                    return Ok((stream, hello));
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if Instant::now() >= deadline {
                    bail!("within {} s: is it started, and can it reach this machine?", MEETING.as_secs());
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn read_hello(mut stream: &TcpStream, kind: Kind) -> Result<Option<Hello>> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut bytes = [0; 19];
    let read = stream.read_exact(&mut bytes).is_ok();
    stream.set_read_timeout(None)?;
    if !read || bytes[..8] != *MAGIC || bytes[8] != kind as u8 {
        return Ok(None);
    }
    let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize;
    Ok(Some(Hello { rank: number(9), size: number(13), port: u16::from_le_bytes([bytes[17], bytes[18]]) }))
}
