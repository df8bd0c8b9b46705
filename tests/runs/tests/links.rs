//! Connections to object stores and web servers: outages, slow links, servers that stop in the middle, and redirects.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use wavemill_tests::Failed;

use crate::bucket::{Bucket, Faults};
use crate::support::{
    contains, copy_folder, inputs, lacks, run, same, same_versions, scratch, wavemill, whole,
    within,
};

/// Bytes that a slow link passes on at once.
const BLOCK_BYTES: usize = 8 << 10;
/// Pause after each block.
const BLOCK_PAUSE: Duration = Duration::from_millis(40);

#[apply(trial)]
fn an_outage_is_waited_for_as_long_as_the_user_wants() -> Result<(), Failed> {
    let faults = Faults {
        outage: Duration::from_secs(25),
        ..Faults::default()
    };
    let bucket = Bucket::start("links-outage", faults);
    copy_folder(whole(), &bucket.folder().join("store"));
    let address = bucket.address("store");
    let cache = scratch("links-outage-cache");
    let mut info = wavemill(["info", "--store", &address]);
    bucket.used_by(&mut info, &cache);

    info.env("WAVEMILL_RETRY_SECONDS", "2");
    let started = Instant::now();
    let ran = run(&mut info).exits(1)?;
    within("seconds", started.elapsed().as_secs(), 2..=12)?;
    ran.says(&["503", "raise WAVEMILL_RETRY_SECONDS"])?;

    info.env_remove("WAVEMILL_RETRY_SECONDS");
    run(&mut info).exits(0)?;
    // Neither the outage nor the pauses during it delay later requests.
    let started = Instant::now();
    run(&mut info).exits(0)?;
    within("seconds", started.elapsed().as_secs(), 0..=5)
}

/// A request may take any time as long as bytes arrive, in both directions.
#[apply(trial)]
fn a_slow_and_steady_link_is_no_error() -> Result<(), Failed> {
    let bucket = Bucket::start("links-slow", Faults::default());
    copy_folder(&inputs().audio, &bucket.folder().join("audio"));
    let link = slow_link(&bucket, usize::MAX)?;
    let address = bucket.address("store");
    let over_link = inputs().with_audio(bucket.address("audio"));
    let mut extract = over_link.extract(Path::new(&address));
    bucket.used_by(&mut extract, &scratch("links-slow-cache"));
    // As long as this was the time of a whole request.
    short_of_time(&mut extract, &link)
        .env_remove("WAVEMILL_TIMEOUT_SECONDS")
        .env("AWS_TIMEOUT", "1s");
    run(&mut extract).exits(0)?;
    same_versions(&bucket.folder().join("store"), whole())
}

#[apply(trial)]
fn a_server_that_stops_in_the_middle_is_an_error_that_names_the_option() -> Result<(), Failed> {
    let bucket = Bucket::start("links-stalled", Faults::default());
    copy_folder(whole(), &bucket.folder().join("store"));
    let link = slow_link(&bucket, 100)?;
    let mut info = wavemill(["info", "--store", &bucket.address("store")]);
    bucket.used_by(&mut info, &scratch("links-stalled-cache"));
    let started = Instant::now();
    run(short_of_time(&mut info, &link))
        .exits(1)?
        .says(&["nothing was received in time", "WAVEMILL_TIMEOUT_SECONDS"])?;
    within("seconds", started.elapsed().as_secs(), 1..=12)
}

/// Makes a command use a link, with a second for progress and two for repetitions.
fn short_of_time<'c>(command: &'c mut Command, link: &str) -> &'c mut Command {
    command
        .env("AWS_ENDPOINT", link)
        .env("WAVEMILL_TIMEOUT_SECONDS", "1")
        .env("WAVEMILL_RETRY_SECONDS", "2")
}

/// Starts a slow link to the server of a bucket, which passes on at most `most` bytes of each connection's answers, and
/// returns its address.
fn slow_link(bucket: &Bucket, most: usize) -> Result<String, Failed> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = format!("http://{}", listener.local_addr()?);
    let server: SocketAddr = bucket.server().trim_start_matches("http://").parse()?;
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(server).unwrap();
            let both = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || pass_on(both.0, both.1, usize::MAX));
            std::thread::spawn(move || pass_on(server, client, most));
        }
    });
    Ok(address)
}

/// Passes on the bytes of one direction. After `most` bytes, the connection stays open and nothing follows.
fn pass_on(mut from: TcpStream, mut to: TcpStream, most: usize) {
    let mut left = most;
    let mut block = [0; BLOCK_BYTES];
    while left > 0 {
        let wanted = left.min(BLOCK_BYTES);
        // Either side may close the connection at any time.
        let read = from.read(&mut block[..wanted]).unwrap_or(0);
        if read == 0 || to.write_all(&block[..read]).is_err() {
            let _ = to.shutdown(Shutdown::Both);
            return;
        }
        left -= read;
        std::thread::sleep(BLOCK_PAUSE);
    }
    std::thread::park();
}

#[apply(trial)]
fn redirects_to_other_servers_are_refused() -> Result<(), Failed> {
    let other = TcpListener::bind("127.0.0.1:0")?;
    let target = format!("http://{}", other.local_addr()?);
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    std::thread::spawn(move || {
        for _ in other.incoming() {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });

    for status in [
        "301 Moved Permanently",
        "302 Found",
        "307 Temporary Redirect",
    ] {
        let address = redirecting(status, format!("{target}/x?secret"))?;
        let mut info = wavemill(["info", "--store", "s3://music/store"]);
        info.env("AWS_ENDPOINT", &address)
            .env("AWS_ALLOW_HTTP", "true")
            .env("AWS_ACCESS_KEY_ID", "key")
            .env("AWS_SECRET_ACCESS_KEY", "secret")
            .env("AWS_SESSION_TOKEN", "token")
            .env("WAVEMILL_CACHE", scratch("links-redirect-cache"));
        let web = inputs().with_metadata(format!("{address}/table.csv"));
        let mut extract = web.extract(&scratch("links-redirect").join("store"));
        for command in [&mut info, &mut extract] {
            let ran = run(command).exits(1)?;
            contains(
                ran.error()?,
                &format!("redirects to another one, {target},"),
            )?;
            lacks(ran.error()?, "secret")?;
        }
    }
    same(
        "connections to the other server",
        asked.load(Ordering::Relaxed),
        0,
    )
}

/// Starts a server that redirects all requests, and returns its address.
fn redirecting(status: &'static str, target: String) -> Result<String, Failed> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = format!("http://{}", listener.local_addr()?);
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            // The request is short, and arrives at once.
            let _ = client.read(&mut [0; 8192]);
            let answer = format!(
                "HTTP/1.1 {status}\r\nLocation: {target}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
            let _ = client.write_all(answer.as_bytes());
        }
    });
    Ok(address)
}
