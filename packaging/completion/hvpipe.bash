# SPDX-License-Identifier: GPL-2.0-or-later
# Completion of hvpipe(1) for bash.

_hvpipe() {
	local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} command="" word i
	local commands="send recv listen ping monitor status doctor wake help"

	for ((i = 1; i < COMP_CWORD; i++)); do
		word=${COMP_WORDS[i]}
		case $word in
		-s | --source) ((i++)) ;;
		-*) ;;
		*) command=$word && break ;;
		esac
	done
	case $previous in
	-s | --source)
		mapfile -t COMPREPLY < <(compgen -W "hmc1 hmc2 hmc3 hmc4" -- "$current")
		return
		;;
	-d | --dir | --root)
		mapfile -t COMPREPLY < <(compgen -d -- "$current")
		return
		;;
	-o | --report)
		mapfile -t COMPREPLY < <(compgen -f -- "$current")
		return
		;;
	-x | --exec)
		mapfile -t COMPREPLY < <(compgen -c -- "$current")
		return
		;;
	esac
	if [[ -z $command ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$commands --source --direct --help --version" -- "$current")
	elif [[ $current == -* ]]; then
		# The options are those that --help names: there is no second list to go stale. The line of the
		# command has their letters, or the names of those that have none.
		mapfile -t COMPREPLY < <(compgen -W "$(hvpipe --help 2>/dev/null | awk -v command="$command" '
			/^  [a-z]/ && $1 == command { usage = $0 " -h -V" (command ~ /^(wake|help)$/ ? "" : " -s -D") }
			match($0, /^ +-[A-Za-z], --[a-z-]+/) { split($0, words, /[ ,=]+/); name[words[2]] = words[3] }
			END {
				while (match(usage, /[ []-[A-Za-z]|--[a-z-]+/)) {
					option = substr(usage, RSTART, RLENGTH)
					print option ~ /^--/ ? option : name[substr(option, 2)]
					usage = substr(usage, RSTART + RLENGTH)
				}
			}')" -- "$current")
	elif [[ $command == send ]]; then
		mapfile -t COMPREPLY < <(compgen -f -- "$current")
	fi
}

complete -o filenames -F _hvpipe hvpipe
