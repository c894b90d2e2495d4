jar=/usr/share/java/jsch.jar
version "JSch $(basename "$(readlink -f $jar)" .jar | sed 's/jsch-//'), Java $(java -version 2>&1 | sed -n '1s/.*"\(.*\)".*/\1/p')"
cp "$CLIENTS/Jsch.java" "$WORK/Jsch.java"
java -cp $jar "$WORK/Jsch.java"
