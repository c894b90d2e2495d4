version "node ssh2 $(node -p "require('$SSH2/ssh2/package.json').version")"
NODE_PATH="$SSH2" node "$CLIENTS/ssh2_.js"
