# pikaci itself, from this tree. It calls the host's incus, and git: its own, where the host has none.
{
  git,
  lib,
  python3Packages,
}:

let
  inherit (lib.importTOML ../pyproject.toml) project;
in
python3Packages.buildPythonApplication {
  pname = project.name;
  inherit (project) version;
  pyproject = true;

  # orchestrator/guest is a link to nix/guest, so include both.
  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../LICENSE
      ../README.md
      ../docs/pikaci.1
      ../docs/schema/pikaci.json
      ../nix/guest
      ../orchestrator
      ../pyproject.toml
      ../states
    ];
  };

  build-system = [ python3Packages.setuptools ];

  # The dependencies in pyproject.toml, with the extra `service`.
  dependencies = with python3Packages; [
    anyio
    click
    h11
    httpx
    jinja2
    msgspec
    prometheus-client
    rich
    starlette
    transitions
    trio
  ];

  makeWrapperArgs = [
    "--suffix"
    "PATH"
    ":"
    (lib.makeBinPath [ git ])
  ];

  pythonImportsCheck = [
    "orchestrator.cli"
    "orchestrator.service.app"
    "states"
  ];

  meta = {
    inherit (project) description;
    license = lib.licenses.asl20;
    mainProgram = "pikaci";
    platforms = lib.platforms.linux;
  };
}
