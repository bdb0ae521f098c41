//! Hints about forwarded ports.

use crate::machine::MachineError;

pub(crate) fn of(error: &MachineError) -> Vec<String> {
    let one = |hint: &str| vec![hint.to_owned()];
    match error {
        MachineError::PortTaken { port } => vec![
            format!("see which program uses it: ss -ltnp 'sport = :{port}'"),
            "or use another port: --api-port N for the API, k3s-vm port add N:GUEST for others"
                .to_owned(),
        ],
        MachineError::PortRefused { .. } => {
            one("use a port above 1023, e.g. --api-port 6443 or k3s-vm port add 8080:80")
        }
        MachineError::Forwarded(it) => {
            vec![format!("remove it first: k3s-vm port rm {}", it.host.port)]
        }
        MachineError::NotForwarded(_) => one("list them: k3s-vm port list"),
        MachineError::Service {
            name,
            namespace,
            cluster_only: true,
            ..
        } => vec![
            format!(
                "give it a node port: k3s-vm kubectl patch {name} -n {namespace} -p '{{\"spec\":{{\"type\":\"NodePort\"}}}}'"
            ),
            format!(
                "or forward it temporarily: k3s-vm kubectl port-forward {name} -n {namespace} 8080:80"
            ),
        ],
        MachineError::Service { .. } => {
            one("list the services: k3s-vm kubectl get services --all-namespaces")
        }
        _ => Vec::new(),
    }
}
