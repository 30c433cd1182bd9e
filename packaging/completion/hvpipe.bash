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
		# The options are those that --help names: there is no second list to go stale.
		mapfile -t COMPREPLY < <(compgen -W "$(hvpipe --help 2>/dev/null | awk -v command="$command" '
			/^  [a-z]/ { mine = $1 == command }
			/^$/ { mine = 1 }
			mine { while (match($0, /--[a-z-]+/)) { print substr($0, RSTART, RLENGTH)
				$0 = substr($0, RSTART + RLENGTH) } }')" -- "$current")
	elif [[ $command == send ]]; then
		mapfile -t COMPREPLY < <(compgen -f -- "$current")
	fi
}

complete -o filenames -F _hvpipe hvpipe
