//! Every topic the daemon uses; described in `docs/reference/topics.md`.

use crate::prompts::set::topic_level;

/// The version level: changes when a payload changes in a way that old subscribers would misread.
const VERSION: &str = "v1";

/// The topics of one camera on one vehicle.
#[derive(Debug, Clone)]
pub struct Topics {
    vehicle: String,
    camera: String,
}

impl Topics {
    /// All names must be fit for topic levels; `Config` has checked that.
    pub fn new(root: &str, vehicle: &str, camera: &str) -> Self {
        let vehicle = format!("{root}/{VERSION}/{vehicle}");
        Self { camera: format!("{vehicle}/{camera}"), vehicle }
    }

    /// Retained: online or offline. Also the last will.
    pub fn status(&self) -> String {
        format!("{}/status", self.vehicle)
    }

    /// Periodic figures.
    pub fn health(&self) -> String {
        format!("{}/health", self.vehicle)
    }

    /// Retained: the configuration in use.
    pub fn config(&self) -> String {
        format!("{}/config", self.vehicle)
    }

    /// One message a classified frame.
    pub fn result(&self) -> String {
        format!("{}/result", self.camera)
    }

    /// One message a classified frame, if wanted: its embedding.
    pub fn embedding(&self) -> String {
        format!("{}/embedding", self.camera)
    }

    /// One message a tag entered or left.
    pub fn event(&self) -> String {
        format!("{}/event", self.camera)
    }

    /// A picture, on request.
    pub fn thumb(&self) -> String {
        format!("{}/thumb", self.camera)
    }

    /// Filter of the commands to this vehicle.
    pub fn commands(&self) -> String {
        format!("{}/cmd/+", self.vehicle)
    }

    /// The answer to a command.
    pub fn reply(&self, command: &str) -> String {
        format!("{}/cmd/{command}/reply", self.vehicle)
    }

    /// Retained: whether a tag is active.
    pub fn label(&self, name: &str) -> String {
        format!("{}/label/{}", self.camera, topic_level(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_those_of_the_reference() {
        let topics = Topics::new("remoteclip", "uav-1", "nadir");
        assert_eq!(topics.status(), "remoteclip/v1/uav-1/status");
        assert_eq!(topics.result(), "remoteclip/v1/uav-1/nadir/result");
        assert_eq!(topics.label("parking lot"), "remoteclip/v1/uav-1/nadir/label/parking-lot");
    }
}
