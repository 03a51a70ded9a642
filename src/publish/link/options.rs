//! What rumqttc is told about the broker, and the secrets for it.

use std::sync::Arc;

use rumqttc::Transport;
use rumqttc::v5::MqttOptions;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::LastWill;
use rustls::ClientConfig;

use super::{Message, WINDOW};
use crate::config::MqttConfig;
use crate::publish::password::{PasswordError, password};
use crate::publish::tls::{TlsError, client_config};

/// rumqttc counts packet numbers up to this and reserves memory for each: room for a broker that acknowledges out of
/// order, and far from the 65,535 of its default.
const PACKET_NUMBERS: u16 = WINDOW as u16 * 4;
/// A prompt pack comes in one message.
const COMMAND_BYTES: u32 = 1 << 20;
/// Nothing else comes to us.
const OTHER_BYTES: u32 = 10 << 10;

/// Password, authorities and certificates, read and checked. Shown nowhere.
#[derive(Clone)]
pub struct Credentials {
    login: Option<(String, String)>,
    tls: Option<Arc<ClientConfig>>,
}

impl Credentials {
    /// Reads the files that the configuration names, new each time.
    ///
    /// # Errors
    /// [`CredentialsError`] naming the file and the cure, never its content.
    pub fn read(config: &MqttConfig) -> Result<Self, CredentialsError> {
        let login = match &config.username {
            Some(username) => {
                let password = password(config.password_file.as_deref())?.unwrap_or_default();
                Some((username.clone(), password))
            }
            None => None,
        };
        let tls = config.tls.as_ref().map(client_config).transpose()?;
        Ok(Self { login, tls })
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(…)")
    }
}

pub(super) fn options(config: &MqttConfig, credentials: &Credentials, will: Message, commands: bool) -> MqttOptions {
    let mut options = listener(config, credentials);
    options.set_outgoing_inflight_upper_limit(PACKET_NUMBERS);
    options.set_max_packet_size(Some(if commands { COMMAND_BYTES } else { OTHER_BYTES }));
    let payload = config.encoding.encode(will.payload);
    options.set_last_will(LastWill::new(will.topic, payload, QoS::AtLeastOnce, true, None));
    options
}

/// For a client that only listens.
pub fn listener(config: &MqttConfig, credentials: &Credentials) -> MqttOptions {
    let mut options = MqttOptions::new(&config.client_id, &config.host, config.port);
    // No session: what was under way is the spool's business, and commands given while we were away are stale.
    options.set_keep_alive(config.keep_alive).set_clean_start(true);
    options.set_max_packet_size(Some(COMMAND_BYTES));
    if let Some((username, password)) = &credentials.login {
        options.set_credentials(username, password);
    }
    if let Some(tls) = &credentials.tls {
        options.set_transport(Transport::tls_with_config(rumqttc::TlsConfiguration::Rustls(Arc::clone(tls))));
    }
    options
}

/// Why the broker's credentials cannot be used. Never carries them.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The password.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
}
