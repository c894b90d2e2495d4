version "paramiko $(/usr/bin/python3 -c 'import paramiko; print(paramiko.__version__)')"
/usr/bin/python3 "$CLIENTS/paramiko_.py"
