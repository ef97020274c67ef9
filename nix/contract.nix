# The guest contract as Nix data: the same file that the host reads. Pure; needs no nixpkgs.
let
  contract = builtins.fromJSON (builtins.readFile ./guest/contract.json);
in
contract
// {
  # One systemd-tmpfiles rule per directory, in the contract's order: parents come first.
  tmpfilesRules = map (
    directory: "d ${directory.path} ${directory.mode} ${directory.user} ${directory.group} -"
  ) contract.directories;

  # The version that an image claims, so that no job starts in one of another version.
  imageProperties = {
    ${contract.image_property} = toString contract.version;
    ${contract.minor_property} = toString contract.minor;
  };

  # Byte for byte the files that the tests run.
  runnerText = builtins.readFile ./guest/pikaci-incus-run;
  egressText = builtins.readFile ./guest/pikaci-egress;
  deadlineText = builtins.readFile ./guest/pikaci-deadline;
  readyText = builtins.readFile ./guest/pikaci-ready;
}
