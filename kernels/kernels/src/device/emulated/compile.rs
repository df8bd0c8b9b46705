//! Compiles kernels to a shared library with the machine's C++ compiler at run time, and caches the library between
//! runs.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt::Display;
use std::fs::{self, DirBuilder};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use libloading::{Library, Symbol};

use super::refused;
use crate::error::KernelError;

/// Headers of the emulation that are compiled before device.cuh.
const HEADERS: [(&str, &str); 3] = [
    ("fibre.h", include_str!("fibre.h")),
    ("block.h", include_str!("block.h")),
    ("cuda.h", include_str!("cuda.h")),
];

/// Compiler options for the floating-point semantics of a GPU. Only explicit calls fuse multiplications and additions:
/// without these options, g++ 12 fuses complex products in vectorised loops.
const FLAGS: [&str; 7] = [
    "-std=c++17",
    "-O2",
    "-fno-tree-vectorize",
    "-fPIC",
    "-shared",
    "-fvisibility=hidden",
    "-ffp-contract=off",
];

/// Enables the address and undefined behaviour sanitizers, which abort the program at the first error; see
/// scripts/emulated_sanitize.sh.
const SANITIZE: &str = "WAVEMILL_EMULATED_SANITIZE";
const SANITIZE_FLAGS: [&str; 3] = [
    "-g1",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=undefined",
];

/// Advice in the error message if no compiler can be started.
const REMEDY: &str =
    "install a C++ compiler (apt-get install build-essential, dnf install gcc-c++), or set CXX";

/// Libraries loaded so far. They are never unloaded, because threads run a library's code to free stacks when they end.
static LOADED: Mutex<Option<HashMap<u64, Arc<Unit>>>> = Mutex::new(None);

/// A loaded shared library of compiled kernels.
pub(super) struct Unit {
    library: Library,
    sanitized: bool,
}

impl Unit {
    /// Returns the library compiled from `source` with the additional `options`: already loaded, or loaded from the
    /// cache, or newly compiled.
    pub(super) fn load(source: &str, options: &[&'static str]) -> Result<Arc<Self>, KernelError> {
        let mut compiler = Compiler::from_environment()?;
        compiler.flags.extend(options);
        // With these lines, the compiler's messages contain the header's name and the line in it.
        let headers: String = HEADERS
            .iter()
            .map(|(name, text)| format!("#line 1 \"{name}\"\n{text}\n"))
            .collect();
        let text = headers + source;
        let key = compiler.key(&text);

        // Hold the lock during compilation, so that threads that need the same unit wait for it.
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        let units = loaded.get_or_insert_default();
        if let Some(unit) = units.get(&key) {
            return Ok(unit.clone());
        }

        let path = folder()?.join(format!("{key:016x}.so"));
        if !path.exists() {
            compiler.compile(&text, &path)?;
        }

        // SAFETY: the libraries in this folder were compiled by wavemill from headers without load-time code.
        let library =
            unsafe { Library::new(&path) }.map_err(|error| refused("load kernels", error))?;

        let unit = Arc::new(Self {
            library,
            sanitized: compiler.sanitized,
        });
        units.insert(key, unit.clone());
        Ok(unit)
    }

    /// Reports whether the library was compiled with sanitizers.
    pub(super) fn is_sanitized(&self) -> bool {
        self.sanitized
    }

    /// Returns the library's exported symbol called `name`, if there is one.
    pub(super) fn symbol<T>(&self, name: &str) -> Option<Symbol<'_, T>> {
        // SAFETY: callers pass the type that cuda.h declares for the symbol.
        unsafe { self.library.get(name.as_bytes()) }.ok()
    }

    /// Makes the sanitizers, if enabled, report accesses to two address ranges `(start, bytes)`.
    pub(super) fn poison(&self, zones: [(usize, usize); 2]) {
        if self.sanitized {
            let poison = self.symbol::<unsafe extern "C" fn(usize, usize)>("emulated_poison");
            let poison = poison.expect("cuda.h exports it from every unit");
            for (start, bytes) in zones {
                // SAFETY: the function only marks an address range as inaccessible, and no code reads from that range.
                unsafe { poison(start, bytes) };
            }
        }
    }
}

/// Returns the first line of the compiler's `--version`. Errors: there is no compiler; the message contains the remedy.
pub(crate) fn compiler_version() -> Result<String, KernelError> {
    Compiler::from_environment().map(|compiler| compiler.version)
}

#[derive(Clone)]
struct Compiler {
    /// Program and arguments of the compiler; the variable CXX may contain several words.
    words: Vec<OsString>,
    version: String,
    flags: Vec<&'static str>,
    sanitized: bool,
}

impl Compiler {
    /// Returns the compiler selected by the variables CXX and WAVEMILL_EMULATED_SANITIZE at the first call.
    fn from_environment() -> Result<Self, KernelError> {
        static FIRST: OnceLock<Compiler> = OnceLock::new();
        if let Some(compiler) = FIRST.get() {
            return Ok(compiler.clone());
        }
        let sanitized = std::env::var_os(SANITIZE).is_some_and(|value| value == "1");
        let compiler = Self::new(&std::env::var("CXX").unwrap_or_default(), sanitized)?;
        Ok(FIRST.get_or_init(|| compiler).clone())
    }

    fn new(named: &str, sanitized: bool) -> Result<Self, KernelError> {
        let mut words: Vec<OsString> = named.split_whitespace().map(OsString::from).collect();
        if words.is_empty() {
            words.push("c++".into());
        }

        let mut flags = FLAGS.to_vec();
        if cfg!(target_env = "gnu") {
            flags.push("-ftls-model=initial-exec"); // a third faster; uses two words of the space reserved for dlopen
        }
        #[cfg(target_arch = "x86_64")]
        if std::is_x86_feature_detected!("fma") {
            flags.push("-mfma"); // compiles fmaf to one instruction with the same result
        }
        if sanitized {
            flags.extend(SANITIZE_FLAGS);
        }

        let mut compiler = Self {
            words,
            version: String::new(),
            flags,
            sanitized,
        };
        let answer = compiler.run(&["--version"], "")?;
        compiler.version = String::from_utf8_lossy(&answer.stdout)
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned();
        Ok(compiler)
    }

    /// Returns a hash of everything that determines the compiled library. It is stable only within one build of
    /// wavemill, which is sufficient.
    fn key(&self, source: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        (source, &self.flags, &self.version, &self.words).hash(&mut hasher);
        hasher.finish()
    }

    /// Compiles to a temporary file and renames it, so that other processes never see an incomplete library.
    fn compile(&self, source: &str, path: &Path) -> Result<(), KernelError> {
        let part = path.with_extension(format!("part-{}", std::process::id()));
        let output = part.to_string_lossy();
        let arguments = [&self.flags[..], &["-x", "c++", "-", "-o", &output]].concat();
        self.run(&arguments, source)?;
        fs::rename(&part, path).map_err(|error| refused("cache compiled kernels", error))
    }

    fn run(&self, arguments: &[&str], input: &str) -> Result<Output, KernelError> {
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]).args(arguments);
        // The compiler must not use the test's own sanitizer runtime.
        command
            .env_remove("LD_PRELOAD")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());

        let mut child = command.spawn().map_err(|error| self.not_started(&error))?;
        if let Some(mut stdin) = child.stdin.take() {
            // Ignore a write error: if the compiler has exited early, its own error is reported below. There is no
            // deadlock, because it writes no output before it has read all of its input.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child
            .wait_with_output()
            .map_err(|error| self.not_started(&error))?;

        if !output.status.success() {
            return Err(refused(
                "compile kernels",
                String::from_utf8_lossy(&output.stderr),
            ));
        }
        Ok(output)
    }

    fn not_started(&self, error: &std::io::Error) -> KernelError {
        refused(
            "start a C++ compiler",
            format!("{:?}: {error}; {REMEDY}", self.words),
        )
    }
}

/// Returns the cache folder of this user: `$XDG_CACHE_HOME/wavemill/emulated`, or a folder per user in the folder for
/// temporary files.
///
/// Errors: the folder cannot be created, belongs to another user, or is accessible to other users.
fn folder() -> Result<PathBuf, KernelError> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    let user = user().map_err(|error| unusable(&std::env::temp_dir(), error))?;
    let folder = match cache {
        Some(cache) => cache.join("wavemill/emulated"),
        None => std::env::temp_dir().join(format!("wavemill-emulated-{user}")),
    };

    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)
        .map_err(|error| unusable(&folder, error))?;

    // The folder may have existed before. Its files are loaded as code, so no other user may have write access.
    let found = fs::symlink_metadata(&folder).map_err(|error| unusable(&folder, error))?;
    if !found.is_dir() || found.uid() != user || found.permissions().mode() & 0o077 != 0 {
        return Err(unusable(
            &folder,
            "not a folder that only this user can access",
        ));
    }
    Ok(folder)
}

fn unusable(folder: &Path, why: impl Display) -> KernelError {
    refused(
        "cache compiled kernels",
        format!("{}: {why}; set XDG_CACHE_HOME", folder.display()),
    )
}

/// Returns the id of this process's user, which is the owner of a file that it creates.
fn user() -> std::io::Result<u32> {
    let path = std::env::temp_dir().join(format!(
        "wavemill-user-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    let file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)?;
    let user = file.metadata().map(|found| found.uid());
    fs::remove_file(path)?;
    user
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_compiler_error_contains_a_remedy() {
        let error = Compiler::new("no-such-compiler -v", false)
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.starts_with("emulated: start a C++ compiler: [\"no-such-compiler\", \"-v\"]: "),
            "{error}"
        );
        assert!(error.ends_with(REMEDY), "{error}");
    }

    #[test]
    fn an_error_in_a_kernel_names_file_and_line() {
        let source =
            "#line 7 \"mel/mel.cu\"\nstruct P { int n; };\nKERNEL(wrong, P) { undeclared = 1; }\n";
        let error = Unit::load(source, &[]).err().unwrap().to_string();
        assert!(error.contains("mel/mel.cu:8:20: error: "), "{error}");
    }

    #[test]
    fn cache_key_covers_all_inputs() {
        let compiler = Compiler::new("", false).unwrap();
        let mut flags = compiler.clone();
        flags.flags.push("-O3");
        let mut version = compiler.clone();
        version.version.push('1');
        let mut words = compiler.clone();
        words.words.push("-m32".into());

        let keys = [
            compiler.key("source"),
            compiler.key("other"),
            flags.key("source"),
            version.key("source"),
            words.key("source"),
        ];

        assert_eq!(compiler.clone().key("source"), keys[0]);
        assert!((1..5).all(|i| !keys[..i].contains(&keys[i])), "{keys:x?}");
    }

    #[test]
    fn cache_folder_is_private() {
        let folder = folder().unwrap();
        assert_eq!(
            fs::metadata(&folder).unwrap().permissions().mode() & 0o777,
            0o700
        );
        Unit::load("// only that something is there", &[]).unwrap();
        assert!(fs::read_dir(&folder).unwrap().count() > 0);
    }
}
