# NixOS module: what makes a NixOS image a pikaci guest. vm.nix and container.nix put it on the image
# modules of nixpkgs; docs/guest-contract.md says what it keeps.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  contract = import ../contract.nix;
  guest = import ./packages.nix pkgs;

  # Asks the host over /dev/incus/sock. In a VM that socket appears with Incus's agent, and may be
  # late.
  service =
    name:
    {
      description,
      text,
      restartSecs,
    }:
    {
      inherit description;
      wantedBy = [ "multi-user.target" ];
      after = [ "incus-agent.service" ];
      path = [
        pkgs.coreutils
        pkgs.curl
      ];
      startLimitIntervalSec = 0;
      serviceConfig = {
        ExecStart = "${pkgs.writeTextFile {
          inherit name text;
          executable = true;
        }}";
        Restart = "on-failure";
        RestartSec = restartSecs;
      };
    };
in
{
  # With systemPackages the runner stands at /run/current-system/sw/bin, where the host looks.
  environment.systemPackages = [
    (pkgs.callPackage ./run.nix { })
  ]
  ++ guest.tools;

  # Jobs' own scripts begin with #!/bin/bash more often than not.
  systemd.tmpfiles.rules = [ "L+ /bin/bash - - - - ${lib.getExe pkgs.bash}" ] ++ contract.tmpfilesRules;

  systemd.services = lib.mapAttrs service {
    pikaci-ready = {
      description = "Announce that this guest is ready for a job";
      text = contract.readyText;
      restartSecs = 1;
    };
    pikaci-deadline = {
      description = "End this guest at its deadline";
      text = contract.deadlineText;
      restartSecs = 10;
    };
  };

  users.users.${contract.user.name} = {
    isNormalUser = true;
    inherit (contract.user) uid group home;
  };
  users.groups.${contract.user.group}.gid = contract.user.gid;

  # By `incus exec` alone does anybody come in: the image modules bring an empty password for root,
  # and an sshd.
  users.users.root.initialHashedPassword = "!";
  services.openssh.enable = false;

  # A guest without a network device, as most are, has nothing to wait for.
  networking = {
    useDHCP = false;
    dhcpcd.enable = false;
  };
  systemd.network = {
    enable = true;
    networks."50-incus" = {
      matchConfig.Name = "enp5s0 eth0"; # a VM's, a container's
      networkConfig.DHCP = "ipv4";
      linkConfig.RequiredForOnline = "routable";
    };
  };

  nix.settings.experimental-features = [
    "nix-command"
    "flakes"
  ];

  # It lives for one job, and is never upgraded.
  nix.channel.enable = false;
  documentation.enable = lib.mkForce false;
  system.stateVersion = config.system.nixos.release;
}
