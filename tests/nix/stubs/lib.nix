# As much of nixpkgs's lib as nix/ uses, written anew and small: what it is for can be evaluated
# without nixpkgs. It says what nix/ asks for, not that nixpkgs has it.
let
  inherit (builtins)
    attrNames
    concatStringsSep
    foldl'
    isAttrs
    isBool
    isInt
    isString
    listToAttrs
    match
    substring
    ;

  outputOf = output: package: package.${output} or package;

  mkType = name: check: { inherit name check; };
in
rec {
  inherit (builtins)
    any
    attrValues
    concatLists
    mapAttrs
    replaceStrings
    ;
  inherit concatStringsSep listToAttrs;

  nameValuePair = name: value: { inherit name value; };
  genAttrs = names: value: listToAttrs (map (name: nameValuePair name (value name)) names);
  mapAttrsToList = f: set: map (name: f name set.${name}) (attrNames set);
  mapAttrs' = f: set: listToAttrs (mapAttrsToList f set);
  mergeAttrsList = foldl' (all: one: all // one) { };
  recursiveUpdate =
    old: new:
    old
    // builtins.mapAttrs (
      name: value: if isAttrs value && isAttrs (old.${name} or null) then recursiveUpdate old.${name} value else value
    ) new;
  optionalAttrs = wanted: set: if wanted then set else { };
  optionalString = wanted: text: if wanted then text else "";
  optionals = wanted: list: if wanted then list else [ ];

  hasPrefix = prefix: text: substring 0 (builtins.stringLength prefix) text == prefix;

  getExe = package: "${package}/bin/${package.meta.mainProgram}";
  makeBinPath = packages: concatStringsSep ":" (map (package: "${package}/bin") packages);
  makeSearchPathOutput =
    output: path: packages:
    concatStringsSep ":" (map (package: "${outputOf output package}/${path}") packages);
  hiPrio = package: package // { priority = "high"; };
  lowPrio = package: package // { priority = "low"; };

  importTOML = path: builtins.fromTOML (builtins.readFile path);
  fileset = {
    unions = map (path: if builtins.pathExists path then path else throw "no such path: ${toString path}");
    toSource = arguments: arguments // { outPath = "/stub/source"; };
  };

  licenses.asl20 = "Apache-2.0";
  platforms.linux = [ ];
  trivial.release = "99.11";
  literalExpression = text: text;

  # --- modules: see modules.nix ---

  mkIf = condition: content: {
    _type = "if";
    inherit condition content;
  };
  mkOverride = priority: content: {
    _type = "override";
    inherit priority content;
  };
  mkForce = mkOverride 50;
  mkDefault = mkOverride 1000;
  mkOption = option: { _type = "option"; } // option;
  mkEnableOption =
    name:
    mkOption {
      type = types.bool;
      default = false;
      description = "Whether to enable ${name}.";
    };

  types = {
    bool = mkType "bool" isBool;
    str = mkType "str" isString;
    path = mkType "path" (value: builtins.isPath value || (isString value && hasPrefix "/" value));
    package = mkType "package" (value: isAttrs value && value.type or "" == "derivation");
    ints.positive = mkType "ints.positive" (value: isInt value && value > 0);
    strMatching = pattern: mkType "strMatching" (value: isString value && match pattern value != null);
    nullOr = type: mkType "nullOr ${type.name}" (value: value == null || type.check value);
    attrsOf =
      type:
      mkType "attrsOf ${type.name}" (
        value: isAttrs value && builtins.all type.check (builtins.attrValues value)
      );
    listOf = type: mkType "listOf ${type.name}" (value: builtins.isList value && builtins.all type.check value);
  };

  nixosSystem =
    { modules }:
    (import ./modules.nix) {
      inherit modules;
    };
}
