# Boots the host module: the service is up and answers, and Incus has what it needs.
{
  name = "pikaci-host";

  nodes.host = {
    imports = [ ../host.nix ];

    virtualisation = {
      memorySize = 2048;
      diskSize = 8192;
    };
    services.pikaci = {
      enable = true;
      poolSize = "4GiB";
      listen = "127.0.0.1:8443";
      tokenFile = "/etc/pikaci-token";
    };
    environment.etc.pikaci-token = {
      text = "not-so-secret-in-a-test-not-so-secret";
      mode = "0400";
    };
  };

  testScript = ''
    host.wait_for_unit("pikaci.service")
    host.succeed("incus query /1.0/projects/pikaci")
    host.succeed("incus query /1.0/storage-pools/pikaci")
    host.succeed("grep squota /sys/fs/btrfs/*/qgroups/mode")

    # On its socket, and on TCP only with the token.
    socket = "/var/lib/pikaci/root/service.sock"
    host.succeed(f"runuser -u pikaci -- curl --fail --unix-socket {socket} http://pikaci/readyz")
    jobs = "http://127.0.0.1:8443/v1/jobs"
    host.fail(f"curl --fail {jobs}")
    host.succeed(f"curl --fail -H \"Authorization: Bearer $(cat /etc/pikaci-token)\" {jobs}")

    # The reaper succeeds when there is nothing to reap.
    host.succeed("systemctl start pikaci-reap.service")
    host.succeed("systemctl is-active pikaci-reap.timer")

    # The service survives a restart.
    host.succeed("systemctl restart pikaci.service")
    host.wait_for_unit("pikaci.service")
  '';
}
