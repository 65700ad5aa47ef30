//! The answer file that Windows Setup reads: no questions are left, drivers come from the user's virtio image. Pure.
//!
//! Element names and passes are those of Microsoft's "Unattended Windows Setup Reference". Nothing of Windows' own requirements
//! is bypassed: the template gives the machine a TPM and Secure Boot instead.

use serde::{Deserialize, Serialize};
use vmoon_xml::Element;

/// What Setup is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers {
    /// The computer's name, at most 15 characters.
    pub computer: String,
    /// The name of the local administrator.
    pub user: String,
    /// For example `en-US`.
    pub locale: String,
    /// For example `UTC` or `W. Europe Standard Time`.
    pub time_zone: String,
    /// The edition's name in the image, for example `Windows 11 Pro`.
    pub edition: String,
    /// The product key, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product_key: Option<String>,
    /// The folder of the virtio image with drivers for this Windows: `w10` or `w11`.
    pub drivers: String,
    /// Whether a virtio image is there.
    pub virtio: bool,
    /// Whether the disk is partitioned for UEFI.
    pub efi: bool,
}

const NAMESPACE: &str = "urn:schemas-microsoft-com:unattend";
const WCM: &str = "http://schemas.microsoft.com/WMIConfig/2002/State";
/// Drive letters that CD-ROMs get: the answer file cannot know which.
const DRIVES: [&str; 4] = ["D", "E", "F", "G"];
/// Drivers that Setup needs to see the disk and the network, by their folder.
const DRIVERS: [&str; 4] = ["viostor", "vioscsi", "NetKVM", "Balloon"];

fn component(name: &str) -> Element {
    Element::new("component")
        .with("name", name)
        .with("processorArchitecture", "amd64")
        .with("publicKeyToken", "31bf3856ad364e35")
        .with("language", "neutral")
        .with("versionScope", "nonSxS")
}

fn added(name: &str, key: usize) -> Element {
    Element::new(name).with("wcm:action", "add").with_some("wcm:keyValue", (key > 0).then_some(key))
}

impl Answers {
    pub(crate) fn sentence(&self) -> String {
        let drivers = if self.virtio { "drivers from the virtio image" } else { "no virtio drivers" };
        format!("an answer file: {}, computer {}, user {}, {drivers}", self.edition, self.computer, self.user)
    }

    /// The document `autounattend.xml`.
    pub(crate) fn document(&self) -> String {
        let settings = |pass: &str| Element::new("settings").with("pass", pass);
        let mut root = Element::new("unattend").with("xmlns", NAMESPACE).with("xmlns:wcm", WCM);
        root = root.child(settings("windowsPE").all(self.windows_pe()));
        root = root.child(settings("specialize").all(self.specialize()));
        root.child(settings("oobeSystem").all(self.oobe())).to_document()
    }

    fn international(&self, name: &str) -> Element {
        let locale = |element: Element| {
            element.leaf("InputLocale", &self.locale).leaf("SystemLocale", &self.locale).leaf("UserLocale", &self.locale)
        };
        locale(component(name)).leaf("UILanguage", &self.locale)
    }

    fn windows_pe(&self) -> Vec<Element> {
        let mut all = vec![
            self.international("Microsoft-Windows-International-Core-WinPE")
                .child(Element::new("SetupUILanguage").leaf("UILanguage", &self.locale)),
        ];
        if self.virtio {
            let mut paths = Element::new("DriverPaths");
            let mut key = 0;
            for drive in DRIVES {
                for driver in DRIVERS {
                    key += 1;
                    let path = format!("{drive}:\\{driver}\\{}\\amd64", self.drivers);
                    paths = paths.child(added("PathAndCredentials", key).leaf("Path", path));
                }
            }
            all.push(component("Microsoft-Windows-PnpCustomizationsWinPE").child(paths));
        }
        let image = Element::new("InstallFrom").child(added("MetaData", 0).leaf("Key", "/IMAGE/NAME").leaf("Value", &self.edition));
        let target = Element::new("InstallTo").leaf("DiskID", 0).leaf("PartitionID", if self.efi { 3 } else { 2 });
        let mut data = Element::new("UserData").leaf("AcceptEula", "true").leaf("FullName", &self.user);
        let key = Element::new("ProductKey");
        data = data.child(match &self.product_key {
            Some(product_key) => key.leaf("Key", product_key).leaf("WillShowUI", "OnError"),
            None => key.leaf("Key", "").leaf("WillShowUI", "OnError"),
        });
        all.push(
            component("Microsoft-Windows-Setup")
                .child(self.disk())
                .child(Element::new("ImageInstall").child(Element::new("OSImage").child(image).child(target)))
                .child(data),
        );
        all
    }

    /// One disk, wiped: EFI, MSR and Windows, or a system partition and Windows where there is no UEFI.
    fn disk(&self) -> Element {
        let make = |order: usize, kind: &str, megabytes: Option<u32>| {
            let partition = added("CreatePartition", 0).leaf("Order", order).leaf("Type", kind);
            match megabytes {
                Some(size) => partition.leaf("Size", size),
                None => partition.leaf("Extend", "true"),
            }
        };
        let format = |order: usize, number: usize, file_system: Option<&str>, label: &str| {
            let partition = added("ModifyPartition", 0).leaf("Order", order).leaf("PartitionID", number);
            match file_system {
                Some(file_system) => partition.leaf("Format", file_system).leaf("Label", label),
                None => partition,
            }
        };
        let (made, formatted) = if self.efi {
            (
                vec![make(1, "EFI", Some(260)), make(2, "MSR", Some(16)), make(3, "Primary", None)],
                vec![
                    format(1, 1, Some("FAT32"), "System"),
                    format(2, 2, None, ""),
                    format(3, 3, Some("NTFS"), "Windows").leaf("Letter", "C"),
                ],
            )
        } else {
            (
                vec![make(1, "Primary", Some(500)), make(2, "Primary", None)],
                vec![
                    format(1, 1, Some("NTFS"), "System").leaf("Active", "true"),
                    format(2, 2, Some("NTFS"), "Windows").leaf("Letter", "C"),
                ],
            )
        };
        let disk = added("Disk", 0)
            .leaf("DiskID", 0)
            .leaf("WillWipeDisk", "true")
            .child(Element::new("CreatePartitions").all(made))
            .child(Element::new("ModifyPartitions").all(formatted));
        Element::new("DiskConfiguration").leaf("WillShowUI", "OnError").child(disk)
    }

    fn specialize(&self) -> Vec<Element> {
        vec![component("Microsoft-Windows-Shell-Setup").leaf("ComputerName", &self.computer).leaf("TimeZone", &self.time_zone)]
    }

    fn oobe(&self) -> Vec<Element> {
        let screens = Element::new("OOBE")
            .leaf("HideEULAPage", "true")
            .leaf("HideOnlineAccountScreens", "true")
            .leaf("HideWirelessSetupInOOBE", "true")
            .leaf("ProtectYourPC", 3);
        let password = || Element::new("Password").leaf("Value", "").leaf("PlainText", "true");
        let account = added("LocalAccount", 0)
            .leaf("Name", &self.user)
            .leaf("DisplayName", &self.user)
            .leaf("Group", "Administrators")
            .child(password());
        let logon = Element::new("AutoLogon").leaf("Enabled", "true").leaf("LogonCount", 1).leaf("Username", &self.user).child(password());
        let mut shell = component("Microsoft-Windows-Shell-Setup")
            .child(screens)
            .child(Element::new("UserAccounts").child(Element::new("LocalAccounts").child(account)))
            .child(logon);
        if self.virtio {
            let mut commands = Element::new("FirstLogonCommands");
            for (n, drive) in DRIVES.iter().enumerate() {
                // A drive without the program fails at once, and the next one is tried.
                commands = commands.child(
                    added("SynchronousCommand", 0)
                        .leaf("Order", n + 1)
                        .leaf("CommandLine", format!("{drive}:\\virtio-win-guest-tools.exe /install /quiet /norestart"))
                        .leaf("Description", "guest agent and drivers"),
                );
            }
            shell = shell.child(commands);
        }
        vec![self.international("Microsoft-Windows-International-Core"), shell]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers() -> Answers {
        Answers {
            computer: "pc".into(),
            user: "a & <b>".into(),
            locale: "en-US".into(),
            time_zone: "UTC".into(),
            edition: "Windows 11 Pro".into(),
            product_key: None,
            drivers: "w11".into(),
            virtio: true,
            efi: true,
        }
    }

    #[test]
    fn the_document_says_what_was_asked() {
        let all = answers().document();
        Element::parse(&all).unwrap();
        for wanted in [
            &format!("xmlns=\"{NAMESPACE}\""),
            "E:\\viostor\\w11\\amd64",
            "Windows 11 Pro",
            "a &amp; &lt;b&gt;",
            "FAT32",
            "guest-tools.exe",
        ] {
            assert!(all.contains(wanted), "{wanted}");
        }
        assert!(!all.to_lowercase().contains("labconfig"), "nothing is bypassed");
        let plain = Answers { virtio: false, efi: false, product_key: Some("AAAAA-BBBBB".into()), ..answers() }.document();
        assert!(!plain.contains("viostor") && !plain.contains("EFI") && plain.contains("AAAAA-BBBBB"));
    }
}
