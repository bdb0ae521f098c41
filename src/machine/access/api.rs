//! A client of the VM's Kubernetes API, by its kubeconfig.

use std::path::Path;

use crate::{
    base::Name,
    k3s::{Api, Kubeconfig, Node},
    machine::{MachineError, access::kubeconfig},
    project::Record,
};

/// The VM's node, as the API knows it.
///
/// # Errors
///
/// When the API does not answer, or does not know it.
pub(crate) async fn node(api: &Api, name: &Name) -> Result<Node, MachineError> {
    let nodes = api.nodes().await?.into_iter();
    let mut ours = nodes.filter(|node| node.name == name.as_str());
    ours.next()
        .ok_or(MachineError::NotYet("it has not registered"))
}

pub(crate) fn client(path: &Path, kubeconfig: &Kubeconfig) -> Result<Api, MachineError> {
    let unusable = |source| MachineError::Kubeconfig {
        path: path.to_owned(),
        source,
    };
    Ok(Api::new(&kubeconfig.credentials().map_err(unusable)?)?)
}

/// A client by the VM's kubeconfig.
///
/// # Errors
///
/// Those of [`kubeconfig::of`].
pub fn client_of(record: &Record) -> Result<Api, MachineError> {
    client(&record.kubeconfig, &kubeconfig::of(record)?)
}
