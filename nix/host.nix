# NixOS module: a host for pikaci, with Incus set up for it, and `pikaci serve`. The unit is that of
# docs/pikaci.service; docs/nixos.md has an example.
{
  config,
  lib,
  pkgs,
  utils,
  ...
}:

let
  cfg = config.services.pikaci;

  pikaci = lib.getExe cfg.package;
  directory = "/var/lib/pikaci";
  runtimeDirectory = "/run/pikaci";

  # A member of incus-admin is as good as root, whatever is set here. This only limits the effect of
  # a bug in the service itself.
  sandbox = {
    User = cfg.user;
    Group = cfg.group;
    SupplementaryGroups = "incus-admin";
    StateDirectory = "pikaci";
    StateDirectoryMode = "0700";
    WorkingDirectory = directory;
    UMask = "0077";

    NoNewPrivileges = true;
    CapabilityBoundingSet = "";
    ProtectSystem = "strict";
    ProtectHome = "read-only";
    PrivateTmp = true;
    PrivateDevices = true;
    ProtectProc = "invisible";
    ProtectClock = true;
    ProtectControlGroups = true;
    ProtectHostname = true;
    ProtectKernelLogs = true;
    ProtectKernelModules = true;
    ProtectKernelTunables = true;
    LockPersonality = true;
    RestrictNamespaces = true;
    RestrictRealtime = true;
    RemoveIPC = true;
    SystemCallArchitectures = "native";
    SystemCallFilter = "@system-service";
    SystemCallErrorNumber = "EPERM";
    RestrictAddressFamilies = "AF_UNIX";
  };

  # Common to all pikaci commands here.
  unit = {
    after = [
      "incus.service"
      "incus-preseed.service"
    ];
    wants = [ "incus.service" ];
    path = [ config.virtualisation.incus.clientPackage ];
    environment.XDG_STATE_HOME = "/var/lib";
  };

  flags = lib.concatLists (
    lib.mapAttrsToList
      (
        name: value:
        lib.optionals (value != null) [
          "--${name}"
          (toString value)
        ]
      )
      {
        state-root = "${directory}/root";
        warm-secs = cfg.warmSecs;
        host = if cfg.hosts == [ ] then null else lib.concatStringsSep "," cfg.hosts;
        inherit (cfg)
          workspace
          jobs
          cpus
          memory
          queue
          warm
          socket
          listen
          ;
      }
    ++ map (place: [
      "--allow-mounts"
      place
    ]) cfg.allowMounts
  );

  # Where systemd expands `%` without a shell's quotes.
  escapePercent = lib.replaceStrings [ "%" ] [ "%%" ];

  size = lib.types.strMatching "[1-9][0-9]{0,6}(kB|MB|GB|TB|KiB|MiB|GiB|TiB)";

  positive =
    description:
    lib.mkOption {
      type = lib.types.nullOr lib.types.ints.positive;
      default = null;
      inherit description;
    };
in
{
  options.services.pikaci = {
    enable = lib.mkEnableOption "pikaci, which runs CI jobs in throw-away Incus instances";

    package = lib.mkOption {
      type = lib.types.package;
      default = pkgs.callPackage ./package.nix { };
      defaultText = lib.literalExpression "pkgs.callPackage ./package.nix { }";
      description = "The pikaci package to run.";
    };

    user = lib.mkOption {
      type = lib.types.str;
      default = "pikaci";
      description = "The user that the service runs as. It must be able to read the workspaces.";
    };

    group = lib.mkOption {
      type = lib.types.str;
      default = "pikaci";
      description = "The group that the service runs as, in addition to incus-admin.";
    };

    workspace = lib.mkOption {
      type = lib.types.nullOr lib.types.path;
      default = null;
      example = "/srv/project";
      description = "The default workspace of jobs.";
    };

    jobs = positive "How many jobs run at once; by default one per processor, at most 4.";
    cpus = positive "How many processors all running jobs together may use; unlimited by default.";
    warm = positive "How many guests are kept booted on each host before their jobs; none by default.";
    warmSecs = positive "For how many seconds after a job guests of its kind are kept; 600 by default.";
    queue = positive "How many jobs may be queued; the default is that of `pikaci serve`.";

    memory = lib.mkOption {
      type = lib.types.nullOr size;
      default = null;
      example = "16GiB";
      description = "How much memory all running jobs together may use; unlimited by default.";
    };

    socket = lib.mkOption {
      type = lib.types.nullOr lib.types.path;
      default = null;
      example = "${runtimeDirectory}/service.sock";
      description = ''
        The socket of the service, below ${runtimeDirectory} or ${directory}; by default
        ${directory}/root/service.sock. Only the user can access it.
      '';
    };

    listen = lib.mkOption {
      type = lib.types.nullOr lib.types.str;
      default = null;
      example = "127.0.0.1:8443";
      description = "A TCP address to listen on as well, without TLS. It requires `tokenFile`.";
    };

    tokenFile = lib.mkOption {
      type = lib.types.nullOr lib.types.path;
      default = null;
      example = "/run/secrets/pikaci-token";
      description = "A file with the token that TCP clients must send; readable only by root, not in the store.";
    };

    hosts = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      example = [
        "local"
        "build"
      ];
      description = ''
        The hosts that run the guests, by their names in `hostsFile`; each job takes the first with a
        free slot that can run it. By default, this machine.
      '';
    };

    hostsFile = lib.mkOption {
      type = lib.types.nullOr lib.types.path;
      default = null;
      example = "/etc/pikaci/hosts.toml";
      description = ''
        The file of hosts, which the user must be able to read. For a host over ssh it must name a key
        that asks for nothing.
      '';
    };

    allowMounts = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      example = [ "/nix/store" ];
      description = "Host directories that jobs may mount, including those below them; none by default.";
    };

    images = lib.mkOption {
      type = lib.types.attrsOf (lib.types.listOf lib.types.path);
      default = { };
      example = lib.literalExpression ''
        {
          "pikaci/dev" = [
            "''${metadata}/metadata.tar.xz"
            "''${image}/nixos.qcow2"
          ];
        }
      '';
      description = ''
        Guest images by alias, each with the files for `pikaci image import`. They are imported
        before the service starts; an image that exists already is left alone.
      '';
    };

    poolSize = lib.mkOption {
      type = size;
      default = "40GiB";
      description = "The size of the guests' storage pool, a file with btrfs.";
    };

    reapAt = lib.mkOption {
      type = lib.types.str;
      default = "hourly";
      description = "When to delete instances that expired; see systemd.time(7).";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = (cfg.listen == null) == (cfg.tokenFile == null);
        message = "set services.pikaci.listen and services.pikaci.tokenFile together or not at all: a client that can submit a job can read what pikaci can read.";
      }
      {
        assertion =
          cfg.socket == null
          || lib.any (place: lib.hasPrefix "${place}/" cfg.socket) [
            directory
            runtimeDirectory
          ];
        message = "services.pikaci.socket must be below ${runtimeDirectory} or ${directory}: the service can write nowhere else.";
      }
    ];

    virtualisation.incus = {
      enable = true;
      # The same as `pikaci setup` creates.
      preseed = {
        projects = [
          {
            name = "pikaci";
            config = {
              "features.images" = "true";
              "features.profiles" = "true";
            };
          }
        ];
        storage_pools = [
          {
            name = "pikaci";
            driver = "btrfs";
            config.size = cfg.poolSize;
          }
        ];
        profiles = [
          {
            name = "pikaci";
            project = "pikaci";
            description = "A guest of pikaci: a root disk, no network";
            devices.root = {
              type = "disk";
              path = "/";
              pool = "pikaci";
            };
          }
        ];
      };
    };

    # Incus's module requires it if there is a firewall.
    networking.nftables.enable = lib.mkDefault true;

    # The kernel's defaults allow about 16 guests with an init system. Incus's own default is higher
    # for the first (priority 1050), and lower for the second (1000).
    boot.kernel.sysctl = {
      "fs.inotify.max_user_instances" = lib.mkOverride 1100 8192;
      "kernel.keys.maxkeys" = lib.mkOverride 900 20000;
      "kernel.keys.maxbytes" = lib.mkOverride 900 2000000;
    };

    users.users = lib.mkIf (cfg.user == "pikaci") {
      pikaci = {
        isSystemUser = true;
        inherit (cfg) group;
        extraGroups = [ "incus-admin" ];
      };
    };
    users.groups = lib.mkIf (cfg.group == "pikaci") { pikaci = { }; };

    environment.systemPackages = [ cfg.package ];

    systemd.services = {
      pikaci = unit // {
        description = "pikaci: CI jobs in throw-away Incus instances";
        wantedBy = [ "multi-user.target" ];
        after = unit.after ++ [
          "network.target"
          "pikaci-images.service"
          "pikaci-setup.service"
        ];
        path = unit.path ++ [ pkgs.openssh ];
        environment =
          unit.environment
          // {
            PYTHONFAULTHANDLER = "1";
          }
          // lib.optionalAttrs (cfg.hostsFile != null) {
            PIKACI_HOSTS = escapePercent (toString cfg.hostsFile);
          };
        serviceConfig =
          sandbox
          // {
            Type = "notify";
            NotifyAccess = "main";
            # %d is systemd's word for the directory of credentials.
            ExecStart =
              "${pikaci} serve ${utils.escapeSystemdExecArgs flags}"
              + lib.optionalString (cfg.listen != null) " --token-file %d/token";
            # Only pikaci gets TERM: its jobs continue in their guests, and the next start resumes
            # them.
            KillMode = "mixed";
            TimeoutStopSec = 30;
            Restart = "on-failure";
            RestartSec = 2;
            # A restart does not help with a wrong option or a state root in use.
            RestartPreventExitStatus = 2;
            # A service that hangs is killed and started anew; its log says where it hung. A core dump
            # would have secrets.
            WatchdogSec = 60;
            LimitCORE = 0;
            RuntimeDirectory = "pikaci";
            RuntimeDirectoryMode = "0700";
            # An open log or event stream takes one descriptor, an incus command four.
            LimitNOFILE = 8192;
          }
          // lib.optionalAttrs (cfg.listen != null || cfg.hosts != [ ] || cfg.hostsFile != null) {
            RestrictAddressFamilies = "AF_UNIX AF_INET AF_INET6";
          }
          // lib.optionalAttrs (cfg.listen != null) {
            LoadCredential = "token:${escapePercent (toString cfg.tokenFile)}";
          };
      };

      pikaci-images = lib.mkIf (cfg.images != { }) (
        unit
        // {
          description = "Import pikaci's guest images";
          wantedBy = [ "pikaci.service" ];
          serviceConfig = sandbox // {
            Type = "oneshot";
            RemainAfterExit = true;
            ExecStart = lib.mapAttrsToList (
              alias: files:
              "${pikaci} image import ${
                utils.escapeSystemdExecArgs (
                  [
                    "--alias"
                    alias
                  ]
                  ++ files
                )
              }"
            ) cfg.images;
          };
        }
      );

      # What Incus's preseed cannot do: btrfs's simple quotas, which only root can turn on, and only
      # before the first guest.
      pikaci-setup = unit // {
        description = "Set up Incus for pikaci";
        wantedBy = [ "pikaci.service" ];
        before = [ "pikaci-images.service" ];
        path = unit.path ++ [ pkgs.btrfs-progs ];
        # Root must not leave files where the service has its own.
        environment.XDG_STATE_HOME = "/run/pikaci-setup";
        serviceConfig = {
          Type = "oneshot";
          RemainAfterExit = true;
          ExecStart = "${pikaci} setup --no-image";
          RuntimeDirectory = "pikaci-setup";
          UMask = "0077";
        };
      };

      # With its own state root, because the service holds the other one.
      pikaci-reap = unit // {
        description = "Delete pikaci instances that expired";
        startAt = cfg.reapAt;
        serviceConfig = sandbox // {
          Type = "oneshot";
          ExecStart = "${pikaci} reap --expired --state-root ${directory}/reaper";
        };
      };
    };
  };
}
