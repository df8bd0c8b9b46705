//! A bucket whose lists are wrong: nothing is removed because of them, and no version is committed twice.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use wavemill_tests::Failed;

use crate::bucket::{Bucket, Faults};
use crate::steps::{commit, work};
use crate::support::{Ran, argv, contains, files_below, run, same, scratch, wavemill};
use crate::table::Table;

/// A wrong answer to a request for a list: receives the folder that is listed, and the right answer.
type Lie = fn(&str, String) -> String;

/// A proxy between the commands and a bucket.
struct LyingBucket {
    bucket: Bucket,
    proxy: SocketAddr,
    lie: Arc<Mutex<Lie>>,
    cache: PathBuf,
}

impl LyingBucket {
    fn start(name: &str) -> Self {
        let bucket = Bucket::start(name, Faults::default());
        let server = bucket.endpoint();
        let lie = Arc::new(Mutex::new(truth as Lie));
        let told = Arc::clone(&lie);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let lie = *told.lock().unwrap();
                // A client may close its connection at any time.
                std::thread::spawn(move || forward(client?, server, lie));
            }
        });
        Self {
            bucket,
            proxy,
            lie,
            cache: scratch("lying-cache"),
        }
    }

    fn tells(&self, lie: Lie) {
        *self.lie.lock().unwrap() = lie;
    }

    fn run(&self, mut command: Command) -> Ran {
        let command = self.bucket.used_by(&mut command, &self.cache);
        // Errors of the server are repeated for this time.
        command.env("WAVEMILL_RETRY_SECONDS", "1");
        run(command.env("AWS_ENDPOINT", format!("http://{}", self.proxy)))
    }

    /// Returns the files of a store with their bytes, except for the records of runs.
    fn files(&self, store: &str) -> Vec<(String, Vec<u8>)> {
        let folder = self.bucket.folder().join(store);
        let names = files_below(&folder).into_iter();
        let names = names.filter(|name| !name.starts_with("_wavemill/runs"));
        names
            .map(|name| (name.clone(), fs::read(folder.join(&name)).unwrap()))
            .collect()
    }
}

/// Sends one request to the server, and its answer to the client, perhaps with another list.
fn forward(mut client: TcpStream, server: SocketAddr, lie: Lie) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && client.read(&mut byte)? > 0 {
        request.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&request).into_owned();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.parse().ok())?
    });
    let mut body = vec![0; length.unwrap_or(0)];
    client.read_exact(&mut body)?;

    // In this version of HTTP, an answer is not sent in chunks, and the connection ends with it.
    let mut server = TcpStream::connect(server)?;
    server.write_all(head.replacen("HTTP/1.1\r\n", "HTTP/1.0\r\n", 1).as_bytes())?;
    server.write_all(&body)?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;

    let prefix = head
        .split(['&', '?', ' '])
        .find_map(|word| word.strip_prefix("prefix="));
    if let (true, Some(prefix)) = (head.contains("list-type=2"), prefix) {
        let text = String::from_utf8_lossy(&answer);
        let (_, list) = text.split_once("\r\n\r\n").unwrap_or_default();
        let list = lie(
            &prefix.replace("%2F", "/").replace("+", " "),
            list.to_owned(),
        );
        answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{list}",
            list.len()
        )
        .into_bytes();
    }
    client.write_all(&answer)
}

fn truth(_: &str, list: String) -> String {
    list
}

const EMPTY: &str =
    "<ListBucketResult><Name>music</Name><IsTruncated>false</IsTruncated></ListBucketResult>";

fn no_versions(folder: &str, list: String) -> String {
    match folder.ends_with("/versions/") {
        true => EMPTY.to_owned(),
        false => list,
    }
}

fn nothing(_: &str, _: String) -> String {
    EMPTY.to_owned()
}

/// Leaves out the objects whose names end with one of `names`.
fn without(list: &str, names: &[&str]) -> String {
    let mut entries = list.split("<Contents>");
    let mut kept = entries.next().unwrap_or_default().to_owned();
    for entry in entries {
        match names
            .iter()
            .any(|name| entry.contains(&format!("{name}</Key>")))
        {
            true => kept += entry.split_once("</Contents>").map_or("", |(_, rest)| rest),
            false => kept += &format!("<Contents>{entry}"),
        }
    }
    kept
}

fn stale(_: &str, list: String) -> String {
    without(&list, &["/versions/00000003.json"])
}

fn staler(_: &str, list: String) -> String {
    without(
        &list,
        &["/versions/00000002.json", "/versions/00000003.json"],
    )
}

fn with_a_gap(_: &str, list: String) -> String {
    without(&list, &["/versions/00000002.json"])
}

fn no_tags(folder: &str, list: String) -> String {
    match folder.ends_with("/tags/") {
        true => EMPTY.to_owned(),
        false => list,
    }
}

fn login_page(_: &str, _: String) -> String {
    "<!DOCTYPE html>\n<html><head><title>Log in</title></head><body/></html>".to_owned()
}

fn error(_: &str, _: String) -> String {
    "<?xml version=\"1.0\"?><Error><Code>InternalError</Code><Message>again</Message></Error>"
        .to_owned()
}

fn cut(_: &str, list: String) -> String {
    without(&list, &["/versions/00000003.json"])
        .replace("<IsTruncated>false<", "<IsTruncated>true<")
}

/// Each lie is told to `gc`, to `extract`, and to two commits of different plans of the same version.
#[apply(trial)]
fn wrong_lists_remove_and_commit_nothing() -> Result<(), Failed> {
    let liar = LyingBucket::start("lying");
    let table = Table::new("lying-table", 12);
    let address = liar.bucket.address("stores/s");
    let store = Path::new(&address);
    let mels = |n: u32| format!("features.log_mel.n_mels={n}");
    for n in [16, 17, 18] {
        let mut extract = table.written()?.extract(store);
        extract.args(["--set", &mels(n), "--new-version"]);
        liar.run(extract).exits(0)?;
    }
    liar.run(wavemill(argv(&format!(
        r#"tag 1 paper --store "{address}""#
    ))))
    .exits(0)?;
    let plans = [19, 20].map(|n| {
        let mut plan = table.written().unwrap().plan(store);
        plan.args(["--set", &mels(n), "--new-version"]);
        liar.run(plan).out.trim().to_owned()
    });
    for plan in &plans {
        liar.run(work(store, plan, "1/1")).exits(0)?;
    }
    liar.run(wavemill(argv(&format!(r#"info --store "{address}""#))))
        .exits(0)?;
    let before = liar.files("stores/s");

    let lies: [(&str, Lie); 9] = [
        ("no versions", no_versions),
        ("nothing", nothing),
        ("stale", stale),
        ("staler", staler),
        ("a gap", with_a_gap),
        ("no tags", no_tags),
        ("a login page", login_page),
        ("an error", error),
        ("cut", cut),
    ];
    let gc = || wavemill(argv(&format!(r#"gc --keep 1 --store "{address}""#)));
    for (name, lie) in lies {
        let mut extract = table.written()?.extract(store);
        extract.args(["--set", &mels(21), "--new-version"]);
        let [first, second] = plans.each_ref().map(|plan| commit(store, plan));

        liar.tells(lie);
        for command in [gc(), extract, first, second] {
            let what = format!("{name}: {command:?}");
            let ran = liar.run(command);
            if ran.code == Some(0) {
                return Err(format!("{what} succeeds: {}", ran.err).into());
            }
            ran.error()?;
        }
        liar.tells(truth);
        same(name, liar.files("stores/s") == before, true)?;
    }

    // A machine without copies has to rely on the answers of the bucket.
    for (name, lie) in lies {
        // The last lie may have left no copies.
        let _ = fs::remove_dir_all(&liar.cache);
        liar.tells(lie);
        if name != "no tags" && liar.run(gc()).code == Some(0) {
            return Err(format!("{name}: gc succeeds without copies").into());
        }
        liar.tells(truth);
        same(name, liar.files("stores/s") == before, true)?;
    }

    // The truth is believed: of the two commits one succeeds, and `gc` removes the version without a tag.
    let committed = plans
        .each_ref()
        .map(|plan| liar.run(commit(store, plan)).code);
    same("commits", committed, [Some(0), Some(4)])?;
    let collected = liar.run(wavemill(argv(&format!(
        r#"gc --keep 2 --store "{address}""#
    ))));
    contains(&collected.exits(0)?.err, "removed the data of version 2")?;
    liar.run(wavemill(argv(&format!(r#"verify --store "{address}""#))))
        .exits(0)?;
    Ok(())
}

/// Adds a manifest to the lists of the folders of plans.
fn of_other_folders(folder: &str, list: String) -> String {
    let Some((store, _)) = folder.split_once("/data/") else {
        return list;
    };
    let manifest = format!(
        "<Contents><Key>{store}/_wavemill/versions/00000001.json</Key>\
         <LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;0&quot;</ETag><Size>1</Size></Contents>"
    );
    let end = "</ListBucketResult>";
    list.replace(end, &format!("{manifest}{end}"))
}

#[apply(trial)]
fn objects_of_other_folders_are_not_removed() -> Result<(), Failed> {
    let liar = LyingBucket::start("other-folders");
    let table = Table::new("other-folders-table", 12);
    let address = liar.bucket.address("stores/s");
    for n in ["16", "17"] {
        let mut extract = table.written()?.extract(Path::new(&address));
        let mels = format!("features.log_mel.n_mels={n}");
        extract.args(["--set", &mels, "--new-version"]);
        liar.run(extract).exits(0)?;
    }
    let before = liar.files("stores/s");

    liar.tells(of_other_folders);
    let gc = format!(r#"gc --keep 1 --store "{address}""#);
    let ran = liar.run(wavemill(argv(&gc))).exits(1)?;
    contains(&ran.err, "which is not in this folder")?;
    let name = "_wavemill/versions/00000001.json";
    let kept = liar.files("stores/s");
    same(
        "the manifest",
        kept.iter().find(|file| file.0 == name),
        before.iter().find(|file| file.0 == name),
    )
}

/// Adds objects to lists whose names are no paths, or are below the names of other objects.
fn odd_names(folder: &str, list: String) -> String {
    let mut objects = String::new();
    for name in [
        "a//b",
        "../x",
        "./x",
        "/x",
        "",
        "paper/b",
        "00000001.json/x",
        "a&#10;b",
    ] {
        objects += &format!(
            "<Contents><Key>{folder}{name}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>\
             <ETag>&quot;0&quot;</ETag><Size>1</Size></Contents>"
        );
    }
    let prefixes = ["/", "../"]
        .map(|name| format!("<CommonPrefixes><Prefix>{folder}{name}</Prefix></CommonPrefixes>"));
    let end = "</ListBucketResult>";
    list.replace(end, &format!("{objects}{}{end}", prefixes.concat()))
}

#[apply(trial)]
fn odd_names_in_a_bucket_are_left_out() -> Result<(), Failed> {
    let liar = LyingBucket::start("odd-names");
    let table = Table::new("odd-names-table", 12);
    let address = liar.bucket.address("stores/s");
    let store = Path::new(&address);
    liar.run(table.written()?.extract(store)).exits(0)?;
    let on = |words: &str| liar.run(wavemill(argv(&format!(r#"{words} --store "{address}""#))));
    on("tag 1 paper").exits(0)?;

    liar.tells(odd_names);
    for words in [
        "info --version paper",
        "verify",
        "gc --keep 1",
        "tag 1 other",
    ] {
        on(words).exits(0)?;
    }
    let mut next = table.written()?.extract(store);
    next.args(["--set", "features.log_mel.n_mels=17", "--new-version"]);
    liar.run(next).exits(0)?;
    on("gc --keep 1").exits(0)?;
    on("verify").exits(0)?;
    Ok(())
}
