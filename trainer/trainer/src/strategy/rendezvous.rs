//! Connects the ranks of one job: all ranks connect to rank 0, prove that they know the job's token, and receive the
//! addresses of the other ranks.
//!
//! Rank 0 waits until all ranks have connected, compares their settings with its own, and reports any difference to all
//! of them. Connections that cannot prove the token are dropped and do not affect the others. The connections to rank 0
//! stay open for the watchdog.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::links::Peer;
use super::wire::{self, Key};
use super::{RankError, Ranks};

/// Timeout for authenticating one connection with the job's token.
const PROOF_TIMEOUT: Duration = Duration::from_secs(5);
/// Time between two attempts to connect to rank 0 or, on rank 0, to bind its port.
const RETRY: Duration = Duration::from_millis(50);
/// Maximum time in which each rank connects to its neighbours in the ring, after all ranks have connected to rank 0.
const RING_TIMEOUT: Duration = Duration::from_secs(15);
/// Maximum time for which rank 0 tries to bind its port. Connection attempts of other ranks may occupy a port that has
/// just become free.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(2);

/// Settings that must be equal on all ranks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fingerprint {
    /// Version of wavemill that the rank runs.
    pub version: String,
    /// Hash of the manifest of the rank's store.
    pub manifest_hash: String,
    /// Hash of the rank's configuration.
    pub config_hash: String,
    /// Id of the stored feature on which the model is trained.
    pub feature_id: String,
    /// Names of the damaged files that are skipped. They must be equal on all ranks, since the order of rows depends on
    /// them.
    pub lost_files: String,
}

impl Fingerprint {
    /// Returns the name of the first setting that differs between two ranks, with both values.
    fn difference<'a>(&'a self, other: &'a Self) -> Option<(&'static str, &'a str, &'a str)> {
        let fields = [
            ("wavemill", &self.version, &other.version),
            ("manifest", &self.manifest_hash, &other.manifest_hash),
            ("config", &self.config_hash, &other.config_hash),
            ("feature_id", &self.feature_id, &other.feature_id),
            ("damaged files", &self.lost_files, &other.lost_files),
        ];
        let mut fields = fields.into_iter();
        let (field, found, wanted) = fields.find(|(_, found, wanted)| found != wanted)?;
        Some((field, found.as_str(), wanted.as_str()))
    }
}

/// First message of a rank to rank 0.
#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    rank: usize,
    world_size: usize,
    /// Port on which the rank accepts the connection of the previous rank in the ring.
    port: u16,
    fingerprint: Fingerprint,
}

/// Reply of rank 0 after all ranks have connected.
#[derive(Debug, Serialize, Deserialize)]
enum Verdict {
    /// Address on which each rank listens for the previous rank in the ring. A loopback address means the machine of
    /// rank 0.
    Begin {
        table: Vec<SocketAddr>,
    },
    Refused {
        reason: String,
    },
}

/// Connections and addresses of a rank after all ranks have connected to rank 0.
#[derive(Debug)]
pub(super) struct Rendezvous {
    /// On rank 0, connections to every other rank. On other ranks, the connection to rank 0.
    pub(super) control: Vec<Peer>,
    /// Listener that accepts the connection of the previous rank in the ring.
    pub(super) listener: TcpListener,
    /// Addresses at which this rank can reach each rank's listener.
    pub(super) table: Vec<SocketAddr>,
}

/// Blocks until all ranks have connected to rank 0.
///
/// # Errors
/// [`RankError`] if a rank is missing or has other settings, with the same reason on every rank that connected.
pub(super) fn meet(ranks: &Ranks, fingerprint: &Fingerprint) -> Result<Rendezvous, RankError> {
    if ranks.rank > 0 {
        return visit(ranks, fingerprint);
    }

    let address = (listening_ip(ranks), ranks.port);
    let deadline = Instant::now() + LISTEN_TIMEOUT;
    let listener = loop {
        match TcpListener::bind(address) {
            Ok(listener) => break listener,
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::sleep(RETRY);
            }
            Err(source) => {
                return Err(RankError::Other(format!(
                    "rank 0 cannot listen on {}: {source}; set another port with WAVEMILL_PORT",
                    SocketAddr::from(address)
                )));
            }
        }
    };

    receive_ranks(ranks, fingerprint, &listener)
}

/// Returns the address on which rank 0 listens: loopback if the configured address is loopback, else all addresses of
/// this machine, since a host name may resolve to different addresses on different machines.
fn listening_ip(ranks: &Ranks) -> IpAddr {
    let known = (ranks.address.as_str(), ranks.port)
        .to_socket_addrs()
        .map(Vec::from_iter)
        .unwrap_or_default();

    match known.first() {
        Some(address) if ranks.is_local() => address.ip(),
        None if ranks.is_local() => Ipv4Addr::LOCALHOST.into(),
        // The host name resolves only to IPv6 addresses, so the ranks would not reach an IPv4 listener.
        Some(_) if known.iter().all(SocketAddr::is_ipv6) => Ipv6Addr::UNSPECIFIED.into(),
        _ => Ipv4Addr::UNSPECIFIED.into(),
    }
}

/// A rank that has connected to rank 0 and proved that it knows the job's token.
struct Guest {
    hello: Hello,
    stream: TcpStream,
}

/// Runs the rendezvous on rank 0: waits for the other ranks, compares their settings, and sends them all addresses.
fn receive_ranks(
    ranks: &Ranks,
    fingerprint: &Fingerprint,
    listener: &TcpListener,
) -> Result<Rendezvous, RankError> {
    let ring_error = RankError::system(0, "listening for the ring");
    let ring = TcpListener::bind((listening_ip(ranks), 0)).map_err(&ring_error)?;
    let ring_port = ring.local_addr().map_err(&ring_error)?.port();

    // Ranks are sorted by number, so that the result does not depend on the order in which they connect.
    let mut guests = BTreeMap::new();
    let verdict = gather_guests(ranks, listener, &mut guests);
    // Compare settings before reporting missing ranks: a difference may explain why other ranks are missing.
    let verdict = guests
        .values()
        .try_for_each(|guest| agree(guest, ranks, fingerprint))
        .and(verdict);
    if let Err(error) = verdict {
        let refused = Verdict::Refused {
            reason: error.to_string(),
        };
        for guest in guests.values_mut() {
            // Fails if the rank has already disconnected.
            let _ = wire::send(&mut guest.stream, &refused);
        }
        return Err(error);
    }

    // The address of rank 0 is sent as loopback. Each rank replaces it with the address at which it reached rank 0.
    let mut table = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, ring_port))];
    for guest in guests.values() {
        let address = guest
            .stream
            .peer_addr()
            .map_err(RankError::system(0, "reading a rank's address"))?;
        table.push(SocketAddr::from((
            address.ip().to_canonical(),
            guest.hello.port,
        )));
    }

    let begin = Verdict::Begin {
        table: table.clone(),
    };
    for (&rank, guest) in &mut guests {
        wire::send(&mut guest.stream, &begin).map_err(|error| lost(rank, &error))?;
    }

    let control = guests
        .into_iter()
        .map(|(rank, guest)| Peer {
            rank,
            stream: guest.stream,
        })
        .collect();
    Ok(Rendezvous {
        control,
        listener: ring,
        table,
    })
}

fn agree(guest: &Guest, ranks: &Ranks, fingerprint: &Fingerprint) -> Result<(), RankError> {
    let hello = &guest.hello;
    if hello.world_size != ranks.world_size {
        let [found, wanted] = [hello.world_size, ranks.world_size].map(|size| size.to_string());
        return Err(RankError::differs(
            hello.rank,
            "WORLD_SIZE",
            &found,
            &wanted,
        ));
    }
    match hello.fingerprint.difference(fingerprint) {
        Some((field, found, wanted)) => Err(RankError::differs(hello.rank, field, found, wanted)),
        None => Ok(()),
    }
}

/// Collects authenticated ranks in `guests` until all have connected. Each connection is authenticated in its own
/// thread, so that a silent peer does not delay the others.
fn gather_guests(
    ranks: &Ranks,
    listener: &TcpListener,
    guests: &mut BTreeMap<usize, Guest>,
) -> Result<(), RankError> {
    listener
        // `accept` must not block, because the loop also checks the deadline and receives the authenticated ranks.
        .set_nonblocking(true)
        .map_err(RankError::system(0, "listening for ranks"))?;
    let (arrived, arrivals) = crossbeam_channel::unbounded();
    let deadline = Instant::now() + ranks.join_timeout;
    let key = Key::from_token(&ranks.token);

    while guests.len() + 1 < ranks.world_size {
        if Instant::now() >= deadline {
            return Err(missing_ranks(ranks, guests));
        }

        // Errors of `accept` concern a single connection or are temporary. If they persist, the deadline ends the loop.
        if let Ok((stream, _)) = listener.accept() {
            let arrived = arrived.clone();
            std::thread::Builder::new()
                .name("rank-greeting".to_owned())
                .spawn(move || {
                    if let Ok(guest) = greet(stream, &key) {
                        // Sending fails if the start of the job has failed and the receiver has been dropped.
                        let _ = arrived.send(guest);
                    }
                })
                .map_err(RankError::system(0, "starting a handshake thread"))?;
            continue;
        }

        if let Ok(mut guest) = arrivals.recv_timeout(RETRY) {
            let rank = guest.hello.rank;
            if rank == 0 || guests.contains_key(&rank) {
                let error = RankError::Other(format!("two processes claim to be rank {rank}"));
                let refused = Verdict::Refused {
                    reason: error.to_string(),
                };
                let _ = wire::send(&mut guest.stream, &refused);
                return Err(error);
            }
            guests.insert(rank, guest);
        }
    }
    Ok(())
}

fn missing_ranks(ranks: &Ranks, guests: &BTreeMap<usize, Guest>) -> RankError {
    let missing: Vec<String> = (1..ranks.world_size)
        .filter(|rank| !guests.contains_key(rank))
        .map(|rank| rank.to_string())
        .collect();
    RankError::Other(format!(
        "ranks that did not connect to rank 0 within {} s: {}; were all of them started with the same job token?",
        ranks.join_timeout.as_secs(),
        missing.join(", ")
    ))
}

fn greet(mut stream: TcpStream, key: &Key) -> io::Result<Guest> {
    prepare(&stream)?;
    let hello = wire::receive_introduction(&mut stream, key)?;
    Ok(Guest { hello, stream })
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    // On some systems, an accepted connection inherits the non-blocking mode of its listener.
    stream.set_nonblocking(false)?;
    // Ranks wait for small messages, which Nagle's algorithm would delay.
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PROOF_TIMEOUT))?;
    stream.set_write_timeout(Some(PROOF_TIMEOUT))
}

/// Runs the rendezvous on a rank other than 0: connects to rank 0 and receives the addresses of all ranks.
fn visit(ranks: &Ranks, fingerprint: &Fingerprint) -> Result<Rendezvous, RankError> {
    let deadline = Instant::now() + ranks.join_timeout;
    let (mut stream, listener) = loop {
        // Retry after any error until the deadline, because rank 0 may start later than this rank.
        match introduce(ranks, fingerprint) {
            Ok(accepted) => break accepted,
            Err(error) if Instant::now() >= deadline => {
                return Err(RankError::Other(format!(
                    "rank {} cannot reach rank 0 at {}:{} within {} s: {}",
                    ranks.rank,
                    ranks.address,
                    ranks.port,
                    ranks.join_timeout.as_secs(),
                    explain_refusal(&error)
                )));
            }
            Err(_) => std::thread::sleep(RETRY),
        }
    };

    // Rank 0 began to wait before this rank connected, so it replies or ends within this timeout.
    let patience = Some(ranks.join_timeout + PROOF_TIMEOUT);
    stream
        .set_read_timeout(patience)
        .map_err(|error| lost(0, &error))?;
    let verdict = wire::receive(&mut stream).map_err(|error| lost(0, &error))?;
    let home = stream.peer_addr().map_err(|error| lost(0, &error))?.ip();

    match verdict {
        Verdict::Refused { reason } => Err(RankError::Other(format!(
            "rank 0 cancelled the start: {reason}"
        ))),
        Verdict::Begin { mut table } => {
            // A loopback address in the table means the machine of rank 0.
            for address in &mut table {
                if address.ip().is_loopback() {
                    address.set_ip(home);
                }
            }
            let rank_0 = Peer { rank: 0, stream };
            Ok(Rendezvous {
                control: vec![rank_0],
                listener,
                table,
            })
        }
    }
}

/// Tries once to connect to rank 0 and to prove knowledge of the job's token.
fn introduce(ranks: &Ranks, fingerprint: &Fingerprint) -> io::Result<(TcpStream, TcpListener)> {
    let addresses: Vec<SocketAddr> = (ranks.address.as_str(), ranks.port)
        .to_socket_addrs()?
        .collect();
    let mut stream = connect(&addresses)?;

    // On a single machine, the ring's listener uses the address from which this rank reached rank 0. With several
    // machines, it listens on all addresses.
    let own = stream.local_addr()?.ip();
    let any: IpAddr = if own.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let listening = if ranks.is_local() { own } else { any };
    let listener = TcpListener::bind((listening, 0))?;

    let hello = Hello {
        rank: ranks.rank,
        world_size: ranks.world_size,
        port: listener.local_addr()?.port(),
        fingerprint: fingerprint.clone(),
    };
    wire::introduce(&mut stream, &Key::from_token(&ranks.token), &hello)?;
    Ok((stream, listener))
}

/// Connects to the first of several addresses that accepts a connection.
fn connect(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no addresses");
    for address in addresses {
        match TcpStream::connect_timeout(address, PROOF_TIMEOUT) {
            // A connection attempt to a free port above 32767 can connect to itself, and would then block the port for
            // rank 0.
            Ok(stream) if stream.local_addr()? == stream.peer_addr()? => {
                last = io::ErrorKind::ConnectionRefused.into();
            }
            Ok(stream) => {
                prepare(&stream)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn explain_refusal(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::PermissionDenied => {
            "another job is listening there (its token differs); set another port with WAVEMILL_PORT"
                .to_owned()
        }
        _ => error.to_string(),
    }
}

/// Converts an error of a connection to the loss of the connected rank.
pub(super) fn lost(rank: usize, error: &io::Error) -> RankError {
    let reason = match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe => "its connection closed".to_owned(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "it does not respond".to_owned(),
        _ => error.to_string(),
    };
    RankError::Lost { rank, reason }
}

/// Connects to the next rank in the ring and accepts the connection of the previous rank. Other connections are
/// dropped.
///
/// # Errors
/// [`RankError::Lost`] with the number of a neighbour that cannot be connected.
pub(super) fn connect_ring(
    ranks: &Ranks,
    listener: &TcpListener,
    table: &[SocketAddr],
) -> Result<[Peer; 2], RankError> {
    let key = Key::from_token(&ranks.token);
    let next = (ranks.rank + 1) % ranks.world_size;
    let previous = (ranks.rank + ranks.world_size - 1) % ranks.world_size;
    let deadline = Instant::now() + RING_TIMEOUT;

    // Connect and accept at the same time, because all ranks connect to their next rank at the same time.
    let (out, into) = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| accept_from(previous, listener, &key, deadline));
        let out = introduce_to(table[next], ranks.rank, &key, deadline);
        (out, waiting.join().expect("accepting does not panic"))
    });
    let out = out.map_err(|error| lost(next, &error))?;
    let into = into.map_err(|error| lost(previous, &error))?;

    for stream in [&out, &into] {
        // A rank may compute for minutes between two sums. The watchdog, not a timeout, detects a lost rank.
        stream
            .set_read_timeout(None)
            .map_err(|error| lost(previous, &error))?;
        stream
            .set_write_timeout(None)
            .map_err(|error| lost(next, &error))?;
    }

    let next = Peer {
        rank: next,
        stream: out,
    };
    let previous = Peer {
        rank: previous,
        stream: into,
    };
    Ok([next, previous])
}

fn introduce_to(
    address: SocketAddr,
    rank: usize,
    key: &Key,
    deadline: Instant,
) -> io::Result<TcpStream> {
    loop {
        // The next rank may not be listening yet, or may be busy with another connection.
        let attempt = connect(&[address])
            .and_then(|mut stream| wire::introduce(&mut stream, key, &rank).map(|()| stream));
        match attempt {
            Err(_) if Instant::now() < deadline => std::thread::sleep(RETRY),
            done => return done,
        }
    }
}

fn accept_from(
    previous: usize,
    listener: &TcpListener,
    key: &Key,
    deadline: Instant,
) -> io::Result<TcpStream> {
    // Poll instead of blocking, so that this rank stops waiting for its neighbours at the deadline.
    listener.set_nonblocking(true)?;
    while Instant::now() < deadline {
        let Ok((mut stream, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };

        // An unknown program that connects may block this rank for one second at most. The previous rank retries.
        let heard = prepare(&stream)
            .and_then(|()| stream.set_read_timeout(Some(Duration::from_secs(1))))
            .and_then(|()| wire::receive_introduction::<usize>(&mut stream, key));
        if heard.is_ok_and(|rank| rank == previous) {
            return Ok(stream);
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}
