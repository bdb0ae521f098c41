#compdef k3s-vm
# Completions of k3s-vm for zsh.
_k3s_vm() {
    local line value
    local -a found shown
    found=("${(@f)$(K3S_VM_COMPLETE=$((CURRENT - 1)) command k3s-vm -- "${(@Q)words[1,CURRENT]}" 2>/dev/null)}")
    for line in $found; do
        value=${line%%$'\t'*}
        if [[ $line == *$'\t'* ]]; then
            shown+=("${value//:/\\:}:${line#*$'\t'}")
        else
            shown+=("${value//:/\\:}")
        fi
    done
    if ((${#shown})); then
        _describe -V k3s-vm shown
    else
        _files
    fi
}
if [[ ${funcstack[1]} == _k3s-vm ]]; then
    _k3s_vm "$@"
else
    compdef _k3s_vm k3s-vm
fi
