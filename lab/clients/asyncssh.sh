version "asyncssh $(/usr/bin/python3 -c 'import asyncssh; print(asyncssh.__version__)')"
/usr/bin/python3 "$CLIENTS/asyncssh_.py"
