#!/usr/bin/env bash
# The faults that the tests have tried: tests/faults-table.sh print | write | check [ROWS]
#
# print  prints all of them. write  writes tests/faults.md. check  fails when tests/faults.md lacks a fault of this run,
# and lists its faults that this host cannot try. ROWS is the file that tests/it/faults/table.rs writes.
#
# A command that a signal ended, with nothing else to say, is counted in tests/faults.md and has no row.
set -euo pipefail
cd "$(dirname "$0")/.."
rows=${2:-${CARGO_TARGET_DIR:-target}/tmp/faults.tsv}
file=tests/faults.md

# Area, fault, exit code, message, what is left: each fault once, sorted.
sorted() { LC_ALL=C sort -t $'\t' -k1,2 -u "$rows"; }

# Each area with its title: the first words of the comment in the area's test file.
titles() {
    for file in tests/it/faults/*.rs; do
        printf '%s\t' "$(basename "$file" .rs)"
        sed -n 's#^//! ##p' "$file" | tr '\n' ' ' | sed 's/[.:;] .*//'
        echo
    done
}

table() {
    titles | awk -F '\t' '
        NR == FNR { title[$1] = $2; next }
        function cell(text) { gsub(/\|/, "\\|", text); gsub(/</, "\\&lt;", text); return text }
        {
            if (!($1 in count)) order[++areas_seen] = $1
            count[$1]++; all++
            if ($5 == "nothing") all_clean++
            else left[$1] = left[$1] sprintf("\nLeft behind after \"%s\": %s\n", $2, $5)
            if ($4 == "" || $4 == "error: interrupted") quiet[$1]++
            else line[$1] = line[$1] sprintf("| %s | %s | %s |\n", cell($2), cell($4), $3)
        }
        END {
            printf "# Faults that the tests try\n\n"
            printf "Written by `tests/faults-table.sh write`. %d faults tried, %d survived: nothing lost, nothing left running.\n", all, all_clean
            for (i = 1; i <= areas_seen; i++) {
                area = order[i]
                printf "\n## %s\n\n%d tried", title[area], count[area]
                if (quiet[area]) printf ", of which %d ended with nothing but \"interrupted\"", quiet[area]
                printf ".\n"
                if (line[area]) printf "\n| fault | first message | exit code |\n|---|---|---|\n%s", line[area]
                printf "%s", left[area]
            }
        }' - <(sorted)
}

# The faults of a table, by name.
names() { awk -F ' [|] ' '/^[|] / && NF >= 3 && $1 != "| fault" { print $1 }' | LC_ALL=C sort -u; }

case ${1:-print} in
    print) sorted | awk -F '\t' '{ printf "%-9s %-55s %4s  %s  (left: %s)\n", $1, $2, $3, $4, $5 }
             END { printf "%d faults tried\n", NR }' ;;
    write)
        table >$file.new
        mv $file.new $file ;;
    check)
        written=$(names <$file)
        run=$(table | names)
        comm -23 <(echo "$written") <(echo "$run") | sed 's/^|/not tried on this host:/'
        new=$(comm -13 <(echo "$written") <(echo "$run"))
        [ -z "$new" ] || {
            printf '%s\n%s does not have these: tests/faults-table.sh write\n' "$new" $file >&2
            exit 1
        } ;;
esac
