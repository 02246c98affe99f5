# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_ssegate_global_optspecs
    string join \n config= demo source= route= h/help V/version
end

function __fish_ssegate_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_ssegate_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_ssegate_using_subcommand
    set -l cmd (__fish_ssegate_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c ssegate -n "__fish_ssegate_needs_command" -l config -d 'The configuration; without it ./gateway.toml, else /etc/ssegate/gateway.toml' -r -F
complete -c ssegate -n "__fish_ssegate_needs_command" -l source -d 'Where the entries are, for a try without a file: redis://HOST:PORT' -r
complete -c ssegate -n "__fish_ssegate_needs_command" -l route -d 'A route, for a try without a file: /events/{name}=events:{name}; may be repeated' -r
complete -c ssegate -n "__fish_ssegate_needs_command" -l demo -d 'No file, no Redis: an embedded source with sample events, a page at /'
complete -c ssegate -n "__fish_ssegate_needs_command" -s h -l help -d 'Print help'
complete -c ssegate -n "__fish_ssegate_needs_command" -s V -l version -d 'Print version'
complete -c ssegate -n "__fish_ssegate_needs_command" -f -a "check" -d 'Validate the configuration: every fault at once, then the resources it may need'
complete -c ssegate -n "__fish_ssegate_needs_command" -f -a "tail" -d 'Follow a stream: print its events, reconnect, resume, show lag and gaps'
complete -c ssegate -n "__fish_ssegate_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c ssegate -n "__fish_ssegate_using_subcommand check" -l config -d 'The configuration; without it ./gateway.toml, else /etc/ssegate/gateway.toml' -r -F
complete -c ssegate -n "__fish_ssegate_using_subcommand check" -l source -d 'Where the entries are, for a try without a file: redis://HOST:PORT' -r
complete -c ssegate -n "__fish_ssegate_using_subcommand check" -l route -d 'A route, for a try without a file: /events/{name}=events:{name}; may be repeated' -r
complete -c ssegate -n "__fish_ssegate_using_subcommand check" -l open-files -d 'Compute the resources for N open files, as a unit allows, not for those allowed here' -r
complete -c ssegate -n "__fish_ssegate_using_subcommand check" -l demo -d 'No file, no Redis: an embedded source with sample events, a page at /'
complete -c ssegate -n "__fish_ssegate_using_subcommand check" -l print -d 'Show each effective value and where it came from; secrets are masked'
complete -c ssegate -n "__fish_ssegate_using_subcommand check" -l json -d 'Print the resources, and the findings of --connect, as JSON'
complete -c ssegate -n "__fish_ssegate_using_subcommand check" -l connect -d 'Ask the servers as well: login, rights, settings that lose entries, keys, clocks'
complete -c ssegate -n "__fish_ssegate_using_subcommand check" -s h -l help -d 'Print help'
complete -c ssegate -n "__fish_ssegate_using_subcommand tail" -l last-event-id -d 'Begin after this id' -r
complete -c ssegate -n "__fish_ssegate_using_subcommand tail" -s h -l help -d 'Print help'
complete -c ssegate -n "__fish_ssegate_using_subcommand help; and not __fish_seen_subcommand_from check tail help" -f -a "check" -d 'Validate the configuration: every fault at once, then the resources it may need'
complete -c ssegate -n "__fish_ssegate_using_subcommand help; and not __fish_seen_subcommand_from check tail help" -f -a "tail" -d 'Follow a stream: print its events, reconnect, resume, show lag and gaps'
complete -c ssegate -n "__fish_ssegate_using_subcommand help; and not __fish_seen_subcommand_from check tail help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
