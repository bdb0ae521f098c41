//! What to do about forwarded ports.

use crate::machine::MachineError;

pub(crate) fn of(error: &MachineError) -> Vec<String> {
    let one = |hint: &str| vec![hint.to_owned()];
    match error {
        MachineError::PortTaken { port } => vec![
            format!("see who has it: ss -ltnp 'sport = :{port}'"),
            "or take another one: --api-port N for the API (without the flag a free one is taken), k3s-vm port add N:GUEST for others".to_owned(),
        ],
        MachineError::PortRefused { .. } => one("take one above 1023, like --api-port 6443 or k3s-vm port add 8080:80"),
        MachineError::Forwarded(it) => vec![format!("close it first: k3s-vm port rm {}", it.host.port)],
        MachineError::NotForwarded(_) => one("see which are: k3s-vm port list"),
        MachineError::Service { name, namespace, cluster_only: true, .. } => vec![
            format!("give it a port of the node: k3s-vm kubectl patch {name} -n {namespace} -p '{{\"spec\":{{\"type\":\"NodePort\"}}}}'"),
            format!("or forward it for as long as a command runs: k3s-vm kubectl port-forward {name} -n {namespace} 8080:80"),
        ],
        MachineError::Service { .. } => one("see what there is: k3s-vm kubectl get services --all-namespaces"),
        _ => Vec::new(),
    }
}
