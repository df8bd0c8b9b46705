//! Who may connect: the password, by SCRAM-SHA-256, and TLS.
//!
//! There is one password and no list of users, so every user name is accepted. The password itself is not kept: SCRAM
//! needs only its salted hash.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use datafusion_postgres::pgwire::api::auth::sasl::SASLAuthStartupHandler;
use datafusion_postgres::pgwire::api::auth::sasl::scram::{
    SCRAM_ITERATIONS, ScramAuth, gen_salted_password, random_nonce,
};
use datafusion_postgres::pgwire::api::auth::{
    AuthSource, DefaultServerParameterProvider, LoginInfo, Password, StartupHandler as _,
    finish_authentication, protocol_negotiation, save_startup_parameters_to_metadata,
};
use datafusion_postgres::pgwire::api::{
    ClientInfo as _, PidSecretKeyGenerator, RandomPidSecretKeyGenerator,
};
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::PgWireFrontendMessage;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto::ring};

use super::connections::Socket;
use super::errors::{INVALID_AUTHORIZATION, fatal};
use super::names::{POSTGRES_VERSION, SCHEMA};

/// Name of PostgreSQL's protocol in TLS, for clients that begin with TLS.
const ALPN: &[u8] = b"postgresql";

/// The conditions under which clients may connect.
pub(crate) struct Access {
    password: Option<Arc<SaltedPassword>>,
    tls: Option<TlsAcceptor>,
    parameters: Arc<DefaultServerParameterProvider>,
    /// Identifies connections in requests to cancel their queries.
    keys: Arc<dyn PidSecretKeyGenerator>,
}

/// The reason why TLS cannot be offered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("--tls-cert {}: no certificate in PEM format: {source}", path.display())]
    Certificate { path: PathBuf, source: pem::Error },
    #[error("--tls-key {}: no private key in PEM format: {source}", path.display())]
    Key { path: PathBuf, source: pem::Error },
    #[error("--tls-cert and --tls-key do not fit each other: {0}")]
    Pair(#[from] tokio_rustls::rustls::Error),
}

impl Access {
    /// Creates the access for everyone who knows `password`, or for everyone if it is `None`.
    pub(crate) fn new(password: Option<&str>) -> Self {
        let mut parameters = DefaultServerParameterProvider::default();
        parameters.server_version = POSTGRES_VERSION.to_owned();
        parameters.search_path = SCHEMA.to_owned();
        parameters.is_superuser = false;
        parameters.default_transaction_read_only = true;

        Self {
            password: password.map(|password| Arc::new(SaltedPassword::new(password))),
            tls: None,
            parameters: Arc::new(parameters),
            keys: Arc::new(RandomPidSecretKeyGenerator::default()),
        }
    }

    /// Requires TLS of all clients, with the certificates and the key of these files.
    ///
    /// # Errors
    /// [`TlsError`] if a file cannot be read, or the key is not that of the certificate.
    pub(crate) fn with_tls(mut self, certificates: &Path, key: &Path) -> Result<Self, TlsError> {
        let chain = CertificateDer::pem_file_iter(certificates)
            .and_then(|chain| chain.collect::<Result<Vec<_>, _>>())
            .and_then(|chain| match chain.is_empty() {
                true => Err(pem::Error::NoItemsFound),
                false => Ok(chain),
            })
            .map_err(|source| TlsError::Certificate {
                path: certificates.to_owned(),
                source,
            })?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::Key {
            path: key.to_owned(),
            source,
        })?;

        let provider = Arc::new(ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        self.tls = Some(TlsAcceptor::from(Arc::new(config)));
        Ok(self)
    }

    pub(super) fn tls(&self) -> Option<TlsAcceptor> {
        self.tls.clone()
    }

    /// Begins the start of a connection.
    ///
    /// # Errors
    /// If the server requires TLS and the client does not use it.
    pub(super) fn startup(&self, socket: &Socket) -> PgWireResult<Startup<'_>> {
        if self.tls.is_some() && !socket.is_secure() {
            let message = "this server requires TLS: connect with sslmode=require";
            return Err(fatal(INVALID_AUTHORIZATION, message));
        }
        let scram = self.password.clone().map(|password| {
            let mut scram = ScramAuth::new(password);
            scram.set_iterations(SCRAM_ITERATIONS);
            SASLAuthStartupHandler::new(Arc::clone(&self.parameters))
                .with_scram(scram)
                .with_pid_secret_key_generator(Arc::clone(&self.keys))
        });
        Ok(Startup {
            access: self,
            scram,
        })
    }
}

/// The start of one connection.
pub(super) struct Startup<'a> {
    access: &'a Access,
    scram: Option<SASLAuthStartupHandler<DefaultServerParameterProvider>>,
}

impl Startup<'_> {
    /// Handles a message of the client. The socket is ready for queries after the last one.
    ///
    /// # Errors
    /// A wrong password, or a message that the protocol does not permit here.
    pub(super) async fn handle(
        &self,
        socket: &mut Socket,
        message: PgWireFrontendMessage,
    ) -> PgWireResult<()> {
        if let Some(scram) = &self.scram {
            return scram.on_startup(socket, message).await;
        }
        let PgWireFrontendMessage::Startup(startup) = message else {
            return Err(PgWireError::InvalidStartupMessage);
        };
        protocol_negotiation(socket, &startup).await?;
        save_startup_parameters_to_metadata(socket, &startup);
        let (pid, key) = self.access.keys.generate(socket);
        socket.set_pid_and_secret_key(pid, key);
        finish_authentication(socket, self.access.parameters.as_ref()).await
    }
}

struct SaltedPassword {
    salt: Vec<u8>,
    hash: Vec<u8>,
}

impl SaltedPassword {
    fn new(password: &str) -> Self {
        let salt = random_nonce().into_bytes();
        let hash = gen_salted_password(password, &salt, SCRAM_ITERATIONS);
        Self { salt, hash }
    }
}

impl std::fmt::Debug for SaltedPassword {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("SaltedPassword")
    }
}

#[async_trait]
impl AuthSource for SaltedPassword {
    async fn get_password(&self, _login: &LoginInfo) -> PgWireResult<Password> {
        Ok(Password::new(Some(self.salt.clone()), self.hash.clone()))
    }
}
