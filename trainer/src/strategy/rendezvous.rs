//! How the ranks of one job find each other: all connect to rank 0, prove the token, and learn where the others listen.
//!
//! Rank 0 waits until all have come, compares them with itself, and answers all at once, so that each learns the
//! reason where they differ. Connections that cannot prove the token are dropped without disturbing anybody. The
//! connections to rank 0 stay open: the watchdog speaks over them.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::links::Peer;
use super::wire::{self, Key};
use super::{RankError, Ranks};

/// How long one connection may take to prove itself.
const PROOF_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two attempts to reach, or to become, rank 0.
const RETRY: Duration = Duration::from_millis(50);
/// How long neighbours look for each other once all ranks have met.
const RING_TIMEOUT: Duration = Duration::from_secs(15);
/// How long rank 0 tries to listen: a port that just became free may be held for a moment by others' attempts.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(2);

/// What ranks must agree on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fingerprint {
    /// wavemill's version.
    pub version: String,
    /// Hash of the store's manifest.
    pub manifest_hash: String,
    /// Hash of the configuration.
    pub config_hash: String,
    /// The stored feature's.
    pub feature_id: String,
    /// Files that are passed over because they are damaged: the order of rows is that of the others.
    pub lost_files: String,
}

impl Fingerprint {
    /// The first field in which two differ: its name, `self`'s value, `other`'s.
    fn difference(&self, other: &Self) -> Option<(&'static str, String, String)> {
        let fields = [
            ("wavemill", &self.version, &other.version),
            ("manifest", &self.manifest_hash, &other.manifest_hash),
            ("config", &self.config_hash, &other.config_hash),
            ("feature_id", &self.feature_id, &other.feature_id),
            ("damaged files", &self.lost_files, &other.lost_files),
        ];
        let (field, found, wanted) = fields
            .into_iter()
            .find(|(_, found, wanted)| found != wanted)?;
        Some((field, found.clone(), wanted.clone()))
    }
}

/// How a rank presents itself to rank 0.
#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    rank: usize,
    world_size: usize,
    /// Of its listener for the ring.
    port: u16,
    fingerprint: Fingerprint,
}

/// Rank 0's word when all have come.
#[derive(Debug, Serialize, Deserialize)]
enum Verdict {
    /// Where each rank listens; loopback means rank 0's machine.
    Begin {
        table: Vec<SocketAddr>,
    },
    Refused {
        reason: String,
    },
}

/// What a rank has when all have met.
#[derive(Debug)]
pub(super) struct Rendezvous {
    /// Rank 0: to every other rank; others: to rank 0.
    pub(super) control: Vec<Peer>,
    /// For the ring.
    pub(super) listener: TcpListener,
    /// Where each rank's listener can be reached from here.
    pub(super) table: Vec<SocketAddr>,
}

/// Waits until all ranks have come.
///
/// # Errors
/// [`RankError`]; the same reason on every rank that came.
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
                return Err(RankError::Listen {
                    address: SocketAddr::from(address).to_string(),
                    source,
                });
            }
        }
    };

    receive_ranks(ranks, fingerprint, &listener)
}

/// Loopback where the address says so; else every address of this machine, since a name may mean different ones to
/// different machines.
fn listening_ip(ranks: &Ranks) -> IpAddr {
    let known = (ranks.address.as_str(), ranks.port)
        .to_socket_addrs()
        .map(Vec::from_iter)
        .unwrap_or_default();

    match known.first() {
        Some(address) if ranks.is_local() => address.ip(),
        None if ranks.is_local() => Ipv4Addr::LOCALHOST.into(),
        // A listener for IPv4 would hear nobody who takes this name.
        Some(_) if known.iter().all(SocketAddr::is_ipv6) => Ipv6Addr::UNSPECIFIED.into(),
        _ => Ipv4Addr::UNSPECIFIED.into(),
    }
}

/// A rank that proved the token.
struct Guest {
    hello: Hello,
    stream: TcpStream,
}

/// Rank 0's side.
fn receive_ranks(
    ranks: &Ranks,
    fingerprint: &Fingerprint,
    listener: &TcpListener,
) -> Result<Rendezvous, RankError> {
    let ring_error = RankError::system(0, "listening for the ring");
    let ring = TcpListener::bind((listening_ip(ranks), 0)).map_err(&ring_error)?;
    let ring_port = ring.local_addr().map_err(&ring_error)?.port();

    // By rank, whatever the order in which they come.
    let mut guests = BTreeMap::new();
    let verdict = gather_guests(ranks, listener, &mut guests);
    // A rank that differs explains others that are missing, so that it is looked for first.
    let verdict = guests
        .values()
        .try_for_each(|guest| agree(guest, ranks, fingerprint))
        .and(verdict);
    if let Err(error) = verdict {
        let refused = Verdict::Refused {
            reason: error.to_string(),
        };
        for guest in guests.values_mut() {
            // One that is gone needs no reason.
            let _ = wire::send(&mut guest.stream, &refused);
        }
        return Err(error);
    }

    // Rank 0 stands as loopback here: each of the others puts in the address by which it reached rank 0.
    let mut table = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, ring_port))];
    for guest in guests.values() {
        let address = guest
            .stream
            .peer_addr()
            .map_err(RankError::system(0, "asking for a rank's address"))?;
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
    let difference = if hello.world_size == ranks.world_size {
        hello.fingerprint.difference(fingerprint)
    } else {
        Some((
            "WORLD_SIZE",
            hello.world_size.to_string(),
            ranks.world_size.to_string(),
        ))
    };

    match difference {
        Some((field, found, wanted)) => Err(RankError::Disagree {
            rank: hello.rank,
            field,
            found,
            wanted,
        }),
        None => Ok(()),
    }
}

/// Fills `guests` until there are as many as the world has ranks. Each connection proves itself in a thread of its own,
/// so that one that keeps silent holds up nobody.
fn gather_guests(
    ranks: &Ranks,
    listener: &TcpListener,
    guests: &mut BTreeMap<usize, Guest>,
) -> Result<(), RankError> {
    listener
        // Between two connections the deadline is looked at, and who has proved itself.
        .set_nonblocking(true)
        .map_err(RankError::system(0, "listening for ranks"))?;
    let (arrived, arrivals) = crossbeam_channel::unbounded();
    let deadline = Instant::now() + ranks.join_timeout;
    let key = Key::of(&ranks.token);

    while guests.len() + 1 < ranks.world_size {
        if Instant::now() >= deadline {
            return Err(missing_ranks(ranks, guests));
        }

        // Other errors are of one connection, or pass: the deadline ends what does not.
        if let Ok((stream, _)) = listener.accept() {
            let arrived = arrived.clone();
            std::thread::Builder::new()
                .name("rank-greeting".to_owned())
                .spawn(move || {
                    if let Ok(guest) = greet(stream, &key) {
                        // Nobody waits any more: the start has failed.
                        let _ = arrived.send(guest);
                    }
                })
                .map_err(RankError::system(0, "greeting a rank"))?;
            continue;
        }

        if let Ok(mut guest) = arrivals.recv_timeout(RETRY) {
            let rank = guest.hello.rank;
            if rank == 0 || guests.contains_key(&rank) {
                let error = RankError::Duplicate { rank };
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
    RankError::Missing {
        ranks: missing.join(", "),
        seconds: ranks.join_timeout.as_secs(),
    }
}

fn greet(mut stream: TcpStream, key: &Key) -> io::Result<Guest> {
    prepare(&stream)?;
    let hello = wire::receive_introduction(&mut stream, key, &())?;
    Ok(Guest { hello, stream })
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    // On some systems an accepted stream never waits because its listener does not.
    stream.set_nonblocking(false)?;
    // Headers are small and waited for: they are not held back until more is to be sent.
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PROOF_TIMEOUT))?;
    stream.set_write_timeout(Some(PROOF_TIMEOUT))
}

/// Every other rank's side.
fn visit(ranks: &Ranks, fingerprint: &Fingerprint) -> Result<Rendezvous, RankError> {
    let deadline = Instant::now() + ranks.join_timeout;
    let (mut stream, listener) = loop {
        // Any failure is tried again until the deadline: rank 0 may start later than this one.
        match introduce(ranks, fingerprint) {
            Ok(accepted) => break accepted,
            Err(error) if Instant::now() >= deadline => {
                return Err(RankError::Unreachable {
                    rank: ranks.rank,
                    address: format!("{}:{}", ranks.address, ranks.port),
                    seconds: ranks.join_timeout.as_secs(),
                    reason: explain_refusal(&error),
                });
            }
            Err(_) => std::thread::sleep(RETRY),
        }
    };

    // Rank 0 began to wait before this one came; it answers, or ends, before this.
    let patience = Some(ranks.join_timeout + PROOF_TIMEOUT);
    stream
        .set_read_timeout(patience)
        .map_err(|error| lost(0, &error))?;
    let verdict = wire::receive(&mut stream).map_err(|error| lost(0, &error))?;
    let home = stream.peer_addr().map_err(|error| lost(0, &error))?.ip();

    match verdict {
        Verdict::Refused { reason } => Err(RankError::Refused { reason }),
        Verdict::Begin { mut table } => {
            // Loopback is meant as rank 0 sees it.
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

/// One attempt to be accepted by rank 0.
fn introduce(ranks: &Ranks, fingerprint: &Fingerprint) -> io::Result<(TcpStream, TcpListener)> {
    let addresses: Vec<SocketAddr> = (ranks.address.as_str(), ranks.port)
        .to_socket_addrs()?
        .collect();
    let mut stream = connect(&addresses)?;

    // Neighbours come to the address at which this rank reached rank 0, or to any where they are on other machines.
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
    let () = wire::introduce(&mut stream, &Key::of(&ranks.token), &hello)?;
    Ok((stream, listener))
}

/// To the first address that answers.
fn connect(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match TcpStream::connect_timeout(address, PROOF_TIMEOUT) {
            // An attempt at a free port above 32767 can meet itself, and would then hold the port against rank 0.
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
            "another job listens there (its token differs); WAVEMILL_PORT names another port"
                .to_owned()
        }
        _ => error.to_string(),
    }
}

/// What a failed connection says about its other side.
pub(super) fn lost(rank: usize, error: &io::Error) -> RankError {
    let reason = match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe => "its connection closed".to_owned(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "it does not answer".to_owned(),
        _ => error.to_string(),
    };
    RankError::Lost { rank, reason }
}

/// Connections to the next rank and from the previous one; others are dropped.
///
/// # Errors
/// [`RankError::Lost`] naming the neighbour.
pub(super) fn connect_ring(
    ranks: &Ranks,
    listener: &TcpListener,
    table: &[SocketAddr],
) -> Result<[Peer; 2], RankError> {
    let key = Key::of(&ranks.token);
    let next = (ranks.rank + 1) % ranks.world_size;
    let previous = (ranks.rank + ranks.world_size - 1) % ranks.world_size;
    let deadline = Instant::now() + RING_TIMEOUT;

    // Both at once: everyone's next is busy with connecting, too.
    let (out, into) = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| accept_from(previous, listener, &key, deadline));
        let out = introduce_to(table[next], ranks.rank, &key, deadline);
        (out, waiting.join().expect("accepting does not panic"))
    });
    let out = out.map_err(|error| lost(next, &error))?;
    let into = into.map_err(|error| lost(previous, &error))?;

    for stream in [&out, &into] {
        // A rank may compute for minutes between two sums; the watchdog, not a timeout, tells whether it lives.
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
        // The neighbour may not listen yet, or may be busy with a stranger.
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
    // Looked at again and again instead of waited for: a neighbour that never comes must not hold this rank beyond the
    // deadline.
    listener.set_nonblocking(true)?;
    while Instant::now() < deadline {
        let Ok((mut stream, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };

        // A stranger is given a second; the neighbour tries again if it had to wait for that.
        let heard = prepare(&stream)
            .and_then(|()| stream.set_read_timeout(Some(Duration::from_secs(1))))
            .and_then(|()| wire::receive_introduction::<usize>(&mut stream, key, &()));
        if heard.is_ok_and(|rank| rank == previous) {
            return Ok(stream);
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}
