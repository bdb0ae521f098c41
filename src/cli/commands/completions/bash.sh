# Completions of k3s-vm for bash.
_k3s_vm() {
    local rest=${COMP_LINE:0:COMP_POINT} current= line spaced index
    local -a words=()
    # bash takes words apart at : and =, which are put together again where nothing was between them.
    for ((index = 0; index <= COMP_CWORD; index++)); do
        spaced=${rest%%[![:space:]]*}
        rest=${rest#"$spaced"}
        current=${COMP_WORDS[index]}
        [[ $index -lt $COMP_CWORD ]] || current=$rest
        rest=${rest#"$current"}
        if [[ -n $spaced || $index -eq 0 || ${#words[@]} -eq 0 ]]; then
            words+=("$current")
        else
            words[${#words[@]} - 1]+=$current
        fi
    done
    current=${words[${#words[@]} - 1]}
    local kept=
    if [[ $COMP_WORDBREAKS == *:* && $current == *:* ]]; then
        kept=${current%:*}:
    elif [[ $COMP_WORDBREAKS == *=* && $current == *=* ]]; then
        kept=${current%%=*}=
    fi
    COMPREPLY=()
    while IFS= read -r line; do
        line=${line%%$'\t'*}
        COMPREPLY+=("${line#"$kept"}")
    done < <(K3S_VM_COMPLETE=$((${#words[@]} - 1)) command k3s-vm -- "${words[@]}" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[/:=] ]]; then
        compopt -o nospace 2>/dev/null
    fi
}
complete -o bashdefault -o default -F _k3s_vm k3s-vm
