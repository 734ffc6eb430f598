//! Asking the router to let others in, by UPnP: only where casd is built with the feature of that name.
//!
//! Owns: what its answers lead to. Refuses: to take a router's word for it: the address that it opened is tried by
//! others like any. Survives a crash: nothing here; what the router opened it closes after two hours.

use libp2p::upnp::Event;

use super::event_loop::EventLoop;

impl EventLoop {
    /// The router has answered, or none has.
    pub(super) fn on_router(&mut self, event: Event) {
        let said = match event {
            Event::NewExternalAddr { external_addr, .. } => {
                if let Some(candidates) = self.swarm.behaviour_mut().candidates.as_mut() {
                    candidates.consider(&external_addr);
                }
                format!("the router has opened {external_addr}")
            }
            Event::ExpiredExternalAddr { external_addr, .. } => {
                format!("the router has closed {external_addr} again")
            }
            Event::GatewayNotFound => "no router answers to UPnP".to_owned(),
            Event::NonRoutableGateway => "the router is itself behind another".to_owned(),
        };
        tracing::info!("{said}");
        self.reaching.router = said;
        // The swarm tells others of what the router opened; that waits until somebody has been let in.
        self.publish_addresses();
    }
}
