//! Object stores that break a promise: what S3-compatible servers and proxies do that report success for what they did
//! not do. No version may be lost there.

use std::fs;
use std::path::Path;
use std::process::Command;

use http::header::IF_NONE_MATCH;
use http::{Method, Request, StatusCode, Uri};
use wavemill_tests::Failed;

use crate::bucket::Bucket;
use crate::steps::{commit, planned, work};
use crate::support::{argv, contains, run, same, scratch, versions, wavemill};
use crate::table::Table;

/// A promise of S3 that a server breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// Replaces objects although the request has the condition that there is none.
    IgnoresCondition,
    /// Answers 501 to requests with this condition.
    RefusesCondition,
    /// Answers 200 to manifests, and stores them nowhere.
    DropsManifests,
}

impl Lie {
    /// Changes a request into that which the server executes. Returns the status of an answer without execution.
    pub(crate) fn apply<B>(self, request: &mut Request<B>) -> Option<StatusCode> {
        match self {
            Self::IgnoresCondition => _ = request.headers_mut().remove(IF_NONE_MATCH),
            Self::RefusesCondition if request.headers().contains_key(IF_NONE_MATCH) => {
                return Some(StatusCode::NOT_IMPLEMENTED);
            }
            Self::RefusesCondition => {}
            Self::DropsManifests => {
                let is_manifest = request.uri().path().contains("/_wavemill/versions/");
                if is_manifest && request.method() == Method::PUT {
                    request.headers_mut().remove(IF_NONE_MATCH);
                    *request.uri_mut() = Uri::from_static("/music/elsewhere");
                }
            }
        }
        None
    }

    /// Returns the exit code and a part of the error of a command that would commit.
    fn refusal(self) -> (i32, &'static str) {
        match self {
            Self::IgnoresCondition => (2, "ignores the condition `If-None-Match`"),
            Self::RefusesCondition => (2, "refuses the condition `If-None-Match`"),
            Self::DropsManifests => (1, "reported success, but has no such object"),
        }
    }
}

#[apply(trial)]
fn a_server_that_ignores_conditions_loses_no_version() -> Result<(), Failed> {
    no_version_is_lost(Lie::IgnoresCondition)
}

#[apply(trial)]
fn a_server_that_refuses_conditions_loses_no_version() -> Result<(), Failed> {
    no_version_is_lost(Lie::RefusesCondition)
}

#[apply(trial)]
fn a_proxy_that_drops_manifests_loses_no_version() -> Result<(), Failed> {
    no_version_is_lost(Lie::DropsManifests)
}

fn no_version_is_lost(lie: Lie) -> Result<(), Failed> {
    let bucket = Bucket::without_keys("lies");
    let cache = scratch("lies-cache");
    let with = |mut command: Command| -> Command {
        bucket.used_by(&mut command, &cache);
        command
    };
    let (code, problem) = lie.refusal();
    let remedy = match code {
        2 => "use a server with conditional writes",
        _ => "look for a proxy or a rule that drops requests",
    };
    let refused = |command: Command| -> Result<(), Failed> {
        let ran = run(&mut with(command)).exits(code)?;
        contains(ran.error()?, &bucket.server())?;
        contains(ran.error()?, problem)?;
        contains(ran.error()?, remedy)
    };

    // A first version that seems to succeed, and one that does.
    let address = bucket.address("store");
    let (store, objects) = (Path::new(&address), bucket.folder().join("store"));
    let mut table = Table::new("lies-table", 12);
    bucket.lie(Some(lie));
    refused(table.written()?.extract(store))?;
    same("versions", versions(&objects).len(), 0)?;
    bucket.lie(None);
    run(&mut with(table.written()?.extract(store))).exits(0)?;
    let first = fs::read(objects.join("_wavemill/versions/00000001.json"))?;

    // Two plans for the second version.
    let mut plans = Vec::new();
    for track in [12, 13] {
        table.add(track);
        let mut plan = table.written()?.plan(store);
        plan.arg("--new-version");
        let plan = planned(&mut with(plan))?;
        run(&mut with(work(store, &plan, "1/1"))).exits(0)?;
        plans.push(plan);
    }
    bucket.lie(Some(lie));
    for plan in &plans {
        refused(commit(store, plan))?;
    }
    same(
        "versions",
        versions(&objects),
        vec!["00000001.json".to_owned()],
    )?;

    // The server is repaired: nothing was lost, and only one plan becomes the version.
    bucket.lie(None);
    run(&mut with(commit(store, &plans[1]))).exits(0)?;
    run(&mut with(commit(store, &plans[0]))).exits(4)?;
    same("versions", versions(&objects).len(), 2)?;
    let kept = fs::read(objects.join("_wavemill/versions/00000001.json"))?;
    same("first manifest", kept == first, true)?;
    let mut verify = wavemill(argv("verify --store"));
    verify.arg(&address);
    run(&mut with(verify)).exits(0).map(|_| ())
}
