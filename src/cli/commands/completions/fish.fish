# Completions of k3s-vm for fish.
function __k3s_vm_complete
    set -l words (commandline --current-process --tokenize --cut-at-cursor)
    set -l current (commandline --current-token --cut-at-cursor)
    set -l found (K3S_VM_COMPLETE=(count $words) command k3s-vm -- $words "$current" 2>/dev/null)
    if test (count $found) -gt 0
        string join \n -- $found
    else
        __fish_complete_path "$current"
    end
end
complete --command k3s-vm --exclusive --keep-order --arguments '(__k3s_vm_complete)'
